"""Details of one run: tables of each section, where the results come from, the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cembench.evaluation import sections
from cembench.evaluation.record import Record
from cembench.util.display.charts import Table

BUFFER = ("buffer", "renewed", "renewal")
ONLY = {  # settings of samplers that have an effect under others alone
    "norm": lambda settings: settings.get("eps") is not None,
    "clusters": lambda settings: settings.get("start") == "cluster",
    **dict.fromkeys(BUFFER, lambda settings: settings.get("start") == "buffer"),
}


def tables(record: Record) -> dict[str, Sequence[Table]]:
    """Return the tables of each section, by its name."""
    return {section.key: section.details(section.of(record)) for section in sections.SECTIONS}


def facts(record: Record) -> dict[str, str]:
    """Return the provenance of a record's results: settings, versions, checksums."""
    training = "" if record.train_seconds is None else f"{record.train_seconds:,.0f} training, "
    flops = "" if record.flops is None else f", {record.flops:,} FLOPs per image"
    plain: dict[str, Any] = {
        "method": record.method,
        "network": f"{record.model}, {record.parameters:,} parameters{flops} ({record.kind})",
        "labels used in training": record.labels,
        "data": record.data.get("name", record.dataset),
        "images": f"{record.split} split, fingerprint {record.fingerprint}",
        "threat model": record.threat,
        "protocol": f"{record.protocol.get('name')}, digest {record.protocol_digest}",
        "training seed": record.seed,
        "protocol seed": record.protocol.get("seed"),
        "epoch": f"{record.epoch}{'' if record.finished else ', training unfinished'}",
        "rollbacks after divergence": record.divergences,
        "training gradients": f"{record.gradients:,}",
        "seconds": f"{training}{record.seconds:,.0f} evaluation",
        "checkpoint": record.checkpoint_sha256,
        "weights": record.weights_sha256,
        "table of verdicts": record.table_sha256,
        **{f"input: {name}": value for name, value in record.inputs.items()},
        "recipe": record.recipe,
        **{key: value for key, value in record.environment.items() if value is not None},
        "created": record.created,
        "acceptance": record.accepted,
    }
    return {key: str(value) for key, value in plain.items() if value not in (None, "")}


def settings(sampler: Mapping[str, Any]) -> str:
    """Return the settings of a sampler in one line, without those that have no effect."""
    return ", ".join(
        f"{key} {_plain(value)}"
        for key, value in sampler.items()
        if value is not None and key not in ("name", "label")
        if key not in ONLY or ONLY[key](sampler)
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
