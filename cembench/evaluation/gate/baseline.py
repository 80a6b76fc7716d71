"""The baseline of the gate: a protocol, and per checkpoint its verdicts and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.section import GatedValue
from cembench.evaluation.sections import SECTIONS
from cembench.evaluation.sections.threats import AttackRun
from cembench.util.errors import blaming
from cembench.util.files import write_text
from cembench.util.files.yaml import read_yaml, to_yaml
from cembench.util.settings import Name, Settings, optional_field


class Row(Settings):
    """One checkpoint, and what it was measured under.

    Attributes:
        checkpoint: where it lies, from the folder of the baseline.
        checkpoint_sha256: its checksum when the figures were taken.
        protocol_digest: identifies the protocol of the figures. In format 1 the name of the
            protocol does.
        fingerprint: SHA-256 of the attacked images.
        extractor: SHA-256 of the weights that features of samples are taken with; empty for none.
        software: versions of cembench and of the packages that it computes with. Format 1 has none.
        verdicts: a parquet file with one row per image, from the folder of the baseline. Its name
            contains its checksum.
        verdicts_sha256: its checksum.
        not_applicable: attacks, their stages and other parts of the protocol that do not apply to
            the network.
        sanity_failed: the sanity checks that failed already.
        sanity_passed: those that passed.
        metrics: the other figures.
    """

    checkpoint: str
    checkpoint_sha256: str
    protocol_digest: str = ""
    fingerprint: str
    extractor: str = optional_field("")
    software: dict[str, str] = {}
    verdicts: str
    verdicts_sha256: str
    not_applicable: list[str] = optional_field([])
    sanity_failed: list[str] = []
    sanity_passed: list[str] = []
    metrics: dict[str, GatedValue] = {}

    def is_under(self, protocol: Protocol) -> bool:
        """Return whether the figures were taken under this protocol."""
        if self.protocol_digest:
            return self.protocol_digest == protocol.digest
        return protocol.name == settled_name(protocol)

    def applicable(self, protocol: Protocol) -> list[AttackRun]:
        """Return the attacks of its protocol that apply to the network."""
        return [run for run in protocol.runs if run.title not in self.not_applicable]


class Baseline(Settings):
    """The protocol, the tolerances and the rows that checkpoints are compared with.

    Attributes:
        format: version of the file.
        protocol: how they are measured; its threat model is that of all rows.
        margin: an accuracy may be lower by so much, as a share of the images.
        level: chance of a false alarm over all accuracies together (Holm 1979).
        rows: by name of the run.
    """

    format: Literal[1, 2] = 2
    protocol: Protocol
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    level: Annotated[float, Field(gt=0, lt=1)] = 0.05
    rows: dict[Name, Row] = {}


def settled_name(protocol: Protocol) -> str:
    """Return the name of a baseline's protocol, which contains the first digits of its digest."""
    return f"baseline-{protocol.digest[:6]}"


def load_baseline(path: Path) -> Baseline:
    """Read a baseline; its protocol is named after the file unless it has a name.

    Raises:
        ConfigError: naming each wrong key.
    """
    values = read_yaml(path)
    if isinstance(values.get("protocol"), dict):
        values["protocol"] = {"name": f"baseline-{path.stem}", **values["protocol"]}
    with blaming(path):
        return Baseline.parse(values)


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline, whole or not at all."""
    write_text(path, to_yaml(baseline.model_copy(update={"format": 2}).dump()))


def gated_of(record: Record) -> dict[str, GatedValue]:
    """Return the numbers of a record that have a tolerance, with a customary one."""
    found: dict[str, GatedValue] = {}
    for section in SECTIONS:
        found |= section.gated(section.of(record))
    return found
