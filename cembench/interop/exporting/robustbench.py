"""RobustBench `model_info` files: entries of a model in its leaderboards (arXiv 2010.09670)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from cembench.energy.threat import Threat
from cembench.evaluation.record import Record
from cembench.evaluation.sections.corruption_results import Corruptions
from cembench.evaluation.sections.robustness import Figure
from cembench.interop.exporting import find_record, merge_fields
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files import write_text
from cembench.util.files.names import file_name

AUTHOR_FIELDS = {"link": "", "name": "", "authors": "", "venue": "", "additional_data": None}
FULL_SIZE = 10_000  # test images that the leaderboard asks for on CIFAR
NORMS = ("Linf", "L2")  # with a leaderboard of their own
DATASETS = ("cifar10", "cifar100", "imagenet")


def write(source: ModelSource, out: Path, record: Path | None, fields: dict[str, object]) -> Path:
    """Write a JSON file per threat model that RobustBench has, and return the file or their folder.

    A file goes to `out` itself, or to RobustBench's place for it below that folder.
    """
    found, place = find_record(source, record)
    log = logging.getLogger("cembench")
    infos = model_infos(found, fields)
    if out.suffix == ".json" and len(infos) > 1:
        raise CembenchError(f"--out {out}: entries of {' and '.join(infos)}; give a folder")
    folder = out / "model_info" / file_name(found.dataset)
    files = {norm: folder / norm / f"{file_name(source.name)}.json" for norm in infos}
    if out.suffix == ".json":
        files = dict.fromkeys(infos, out)
    for norm, info in infos.items():
        file = files[norm]
        write_text(file, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
        if empty := [key for key in AUTHOR_FIELDS if info[key] in ("", None)]:
            log.warning("%s: fill in %s, with --set KEY=VALUE", file, ", ".join(empty))
    if found.dataset not in DATASETS:
        log.warning("%s: RobustBench has no data set %s", place, found.dataset)
    if (count := found.figures["clean"].images) < FULL_SIZE:
        log.warning("%s: %d images; RobustBench takes figures of %d", place, count, FULL_SIZE)
    return folder if len(files) > 1 else next(iter(files.values()))


def model_infos(record: Record, fields: dict[str, object]) -> dict[str, dict[str, Any]]:
    """Return the fields of RobustBench's files by its names of norms, accuracies in percent.

    Where two threat models have one norm, the first one counts.

    Raises:
        CembenchError: when AutoAttack was not run in any of its norms, or a field is unknown.
    """
    under = [(record.threat, record.figures)]
    if record.threats is not None:
        under += [(one.threat, one.figures) for one in list(record.threats.under.values())[1:]]
    infos: dict[str, dict[str, Any]] = {}
    for threat, figures in under:
        if threat.ball.library_name in NORMS and "autoattack" in figures:
            info = _model_info(record, threat, figures["autoattack"], fields)
            infos.setdefault(threat.ball.library_name, info)
    corrupted = record.corruptions
    if corrupted is not None and corrupted.complete:
        infos["corruptions"] = _corruption_info(record, corrupted, fields)
    if not infos:
        found = "; ".join(f"{threat}: {', '.join(run) or 'samples alone'}" for threat, run in under)
        raise CembenchError(
            f"{record.run}: RobustBench's figure is AutoAttack's in {' or '.join(NORMS)}, or that "
            f"of all corruptions, and the record has {found}; evaluate with the attack autoattack "
            "and the engine plain"
        )
    return infos


def _corruption_info(
    record: Record, corrupted: Corruptions, fields: dict[str, object]
) -> dict[str, Any]:
    accuracy = f"{100 * corrupted.mean.accuracy:.2f}"
    footnote = (
        f"Measured by cembench {record.environment.get('cembench')} on "
        f"{corrupted.clean.images} {record.split} images, corruptions {corrupted.source}."
    )
    own = {"reported": accuracy, "corruptions_acc": accuracy, "footnote": footnote}
    return _info(record, None, corrupted.clean.accuracy, own, fields)


def _model_info(
    record: Record, threat: Threat, attacked: Figure, fields: dict[str, object]
) -> dict[str, Any]:
    accuracy = f"{100 * attacked.accuracy:.2f}"
    own = {
        "reported": accuracy,
        "autoattack_acc": accuracy,
        "footnote": _footnote(record, attacked),
        "unreliable": bool(record.sanity_failed),
    }
    return _info(record, threat.radius, record.figures["clean"].accuracy, own, fields)


def _info(
    record: Record,
    eps: str | None,
    clean: float,
    own: dict[str, Any],
    fields: dict[str, object],
) -> dict[str, Any]:
    """Return an entry: what all have, then what is its `own`, with the given fields in place."""
    measured = {
        "number_forward_passes": record.protocol["passes"],
        "dataset": record.dataset,
        "architecture": record.model,
        "eps": eps,
        "clean_acc": f"{100 * clean:.2f}",
    }
    return merge_fields(fields, {**AUTHOR_FIELDS, **measured, **own})


def _footnote(record: Record, attacked: Figure) -> str:
    failed = "".join(f"; fails {name}" for name in record.sanity_failed)
    failed += "; not checked for gradient masking" if record.unchecked else ""
    return (
        f"Measured by cembench {record.environment.get('cembench')} on {attacked.images} "
        f"{record.split} images ({attacked.low:.2%} to {attacked.high:.2%}, 95 % Wilson interval), "
        f"protocol {record.protocol['name']}, seed {record.protocol['seed']}{failed}."
    )
