"""RobustBench `model_info` file: the entry of a model in its leaderboard (arXiv 2010.09670)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from cembench.evaluation.record import Record
from cembench.evaluation.sections.robustness import Figure
from cembench.interop.exporting import find_record, merge_fields
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files import write_text
from cembench.util.files.names import file_name

AUTHOR_FIELDS = {"link": "", "name": "", "authors": "", "venue": "", "additional_data": None}
FULL_SIZE = 10_000  # test images that the leaderboard asks for on CIFAR


def write(source: ModelSource, out: Path, record: Path | None, fields: dict[str, object]) -> Path:
    """Write the JSON file: `out` itself, or RobustBench's place for it below that folder."""
    found, place = find_record(source, record)
    info = model_info(found, fields)
    if out.suffix != ".json":
        norm = found.threat.ball.library_name
        folder = out / "model_info" / file_name(str(info["dataset"])) / norm
        out = folder / f"{file_name(source.name)}.json"
    write_text(out, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
    log = logging.getLogger("cembench")
    if empty := [key for key in AUTHOR_FIELDS if info[key] in ("", None)]:
        log.warning("%s: fill in %s, with --set KEY=VALUE", out, ", ".join(empty))
    if (count := found.figures["clean"].images) < FULL_SIZE:
        log.warning("%s: %d images; RobustBench takes figures of %d", place, count, FULL_SIZE)
    return out


def model_info(record: Record, fields: dict[str, object]) -> dict[str, Any]:
    """Return the fields of RobustBench's file, accuracies in percent.

    Raises:
        CembenchError: when AutoAttack was not run, or a field is unknown.
    """
    attacked = record.figures.get("autoattack")
    if attacked is None:
        found = ", ".join(record.figures) or "samples alone"
        raise CembenchError(
            f"{record.run}: RobustBench's figure is AutoAttack's, and the record has {found}; "
            "evaluate with the attack autoattack and the engine plain"
        )
    clean, passes = record.figures["clean"], record.protocol["passes"]
    measured = {
        "number_forward_passes": passes,
        "dataset": record.dataset,
        "architecture": record.model,
        "eps": record.threat.radius,
        "clean_acc": f"{100 * clean.accuracy:.2f}",
        "reported": f"{100 * attacked.accuracy:.2f}",
        "autoattack_acc": f"{100 * attacked.accuracy:.2f}",
        "footnote": _footnote(record, attacked),
        "unreliable": bool(record.sanity_failed),
    }
    return merge_fields(fields, {**AUTHOR_FIELDS, **measured})


def _footnote(record: Record, attacked: Figure) -> str:
    failed = "".join(f"; fails {name}" for name in record.sanity_failed)
    failed += "; not checked for gradient masking" if record.unchecked else ""
    return (
        f"Measured by cembench {record.environment.get('cembench')} on {attacked.images} "
        f"{record.split} images ({attacked.low:.2%} to {attacked.high:.2%}, 95 % Wilson interval), "
        f"protocol {record.protocol['name']}, seed {record.protocol['seed']}{failed}."
    )
