"""Earlier places of modules and names, so that an error can tell a plugin the present ones."""

from __future__ import annotations

import re

_ROOMS = {
    "util": "errors settings registry files provenance devices progress",
    "util.processes": "distributed",
    "util.files": "seal locks",
    "energy": "potentials ascent threat",
    "models": "checkpoint",
    "samplers": "trajectory",
    "training": "config trainer trackers",
}
MODULES = {
    **{f"cembench.{m}": f"cembench.{room}.{m}" for room, ms in _ROOMS.items() for m in ms.split()},
    "cembench.contrast": "cembench.energy.similarity",
    "cembench.guard": "cembench.util.rng and cembench.util.frozen",
    "cembench.draws": "cembench.util.rng",
    "cembench.tables": "cembench.util.files.parquet",
    "cembench.grid": "cembench.util.display.image_grid",
    "cembench.subject": "cembench.models.source",
    "cembench.origins": "cembench.samplers.context",
    "cembench.sampling": "cembench.samplers.draw",
    "cembench.samplers.adversarial": "cembench.samplers.pgd",
    "cembench.samplers.contrastive": "cembench.samplers.embedding",
    "cembench.samplers.starts": "cembench.samplers.initial",
    "cembench.data.fit": "cembench.data.resize",
    "cembench.data.local": "cembench.data.folder",
    "cembench.evaluation.attacks": "cembench.attacks",
    "cembench.evaluation.verify": "cembench.attacks.verdict",
    "cembench.evaluation.engine": "cembench.models.engine",
    "cembench.evaluation.features": "cembench.evaluation.extractors.features",
    "cembench.evaluation.quality": "cembench.evaluation.metrics.functional",
    "cembench.evaluation.figures": "cembench.evaluation.sections",
    "cembench.regression": "cembench.evaluation.gate",
    "cembench.leaderboard": "cembench.reporting.leaderboard",
    "cembench.report": "cembench.reporting.page",
    "cembench.drawing": "cembench.reporting.plots",
}
NAMES = {
    "Scene": "SamplerContext",
    "Passport": "CheckpointMetadata",
    "Subject": "ModelSource",
    "Pool": "ImageFeatures",
    "Log": "TrackerRun",
    "Followed": "RunInfo",
    "Watched": "CheckedModel",
    "GaussianSeeds": "GaussianInit",
    "unless": "optional_field",
}


def moved_to(error: ImportError) -> str | None:
    """Return what a failed import should name now, if it names something that moved."""
    place, name = error.name or "", re.search(r"cannot import name '(\w+)'", str(error))
    if name is not None and place.startswith("cembench"):
        whole = f"{place}.{name[1]}"
        return MODULES.get(whole) or (f"{place}.{NAMES[name[1]]}" if name[1] in NAMES else None)
    while place and place not in MODULES:
        place = place.rpartition(".")[0]
    return MODULES.get(place)
