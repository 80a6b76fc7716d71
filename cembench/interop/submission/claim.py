"""Claim: the record of an entry, read without building or running anything that it names."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cembench.evaluation.diff import compared
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record, load_table
from cembench.interop.submission.checks import Checks, Refused
from cembench.models import models
from cembench.models.factory import Factory
from cembench.models.metadata import CheckpointMetadata, read_metadata
from cembench.util.files import read_bytes, sha256
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.files.seal import is_sealed, seal_at_start
from cembench.util.files.tensors import tensor_metadata
from cembench.util.registry import is_trusted

LIBRARIES = ("timm", "robustbench")  # architectures that other packages know
NO_FILE = "none, since it is not in the entry"
ENOUGH = 3  # differences that are told


@dataclass(frozen=True)
class Claim:
    """What an entry claims.

    Attributes:
        path: the record.
        record: its content.
        table: its table of verdicts; empty for an encoder.
        protocol: what it says that was measured.
        metadata: of the checkpoint; None without one, or with one of an unknown architecture.
        why_not: why the network cannot be run here; empty where it can.
    """

    path: Path
    record: Record
    table: pd.DataFrame
    protocol: Protocol
    metadata: CheckpointMetadata | None
    why_not: str

    @property
    def checkpoint(self) -> Path:
        """The file of the checkpoint."""
        return RunLayout.of_record(self.path).checkpoint


def read_claim(folder: Path, allowed: Sequence[Protocol], checks: Checks) -> Claim:
    """Read the record of an entry and the metadata of its checkpoint, and see what they are of.

    Args:
        folder: the copy of the entry.
        allowed: protocols that may be submitted under; any unless given.
        checks: where the findings go.

    Raises:
        Refused: when the record is unfinished, damaged or of another checkpoint, its protocol is
            not allowed, or evidence is missing.
    """
    with checks.stage("Record"):
        found = RunLayout(folder).records()
        if not checks.require("records", len(found) == 1, "one", len(found)):
            raise Refused
        with checks.trying("the record and its checkpoint", "complete and undamaged"):
            path, record = found[0], load_record(found[0])
            protocol = Protocol.parse(record.protocol)
            _require_finished(record, path, protocol, checks)
            metadata, why_not = _checkpoint(RunLayout(folder).checkpoint, record, checks)
            why_not = why_not or _randomised(protocol)
            _require_protocol(record, protocol, allowed, checks)
            _require_evidence(record, path, protocol, checks)
            classifies = record.kind == "classifier"
            table = load_table(path, record) if classifies else pd.DataFrame()
    return Claim(path, record, table, protocol, metadata, why_not)


def _require_finished(record: Record, path: Path, protocol: Protocol, checks: Checks) -> None:
    checks.equal("error of the record", None, record.error)
    checks.equal("training", "finished", _finished(record.finished, record.epoch))
    checks.equal("split", "test", record.split)
    checks.equal("digest of the protocol", protocol.digest, record.protocol_digest)
    checks.equal("name of the record", f"{protocol.name}.json", path.name)


def _finished(finished: bool, epoch: int) -> str:
    return "finished" if finished else f"stopped after epoch {epoch}"


def _checkpoint(
    file: Path, record: Record, checks: Checks
) -> tuple[CheckpointMetadata | None, str]:
    """Return the metadata of the checkpoint, and why its network cannot be run, if so."""
    if not file.exists():
        checks.equal("SHA-256 of the checkpoint", NO_FILE, record.checkpoint_sha256 or NO_FILE)
        return None, "the network was in memory, and there is no checkpoint"
    content = read_bytes(file)
    checks.equal("SHA-256 of the checkpoint", record.checkpoint_sha256, sha256(file))
    checks.equal("seal of the checkpoint", record.checkpoint_seal, seal_at_start(content))
    if reason := _unknown_architecture(content):
        checks.equal("seal", "fits", "fits" if is_sealed(content) else "does not fit")
        return None, reason
    metadata = read_metadata(file)
    checks.equal("kind of the network", metadata.kind, record.kind)
    checks.equal("epoch", metadata.epoch, record.epoch)
    checks.equal("checkpoint", "finished", _finished(metadata.finished, metadata.epoch))
    return metadata, _needs_code(metadata)


def _unknown_architecture(content: bytes) -> str:
    """Return what a checkpoint says of its architecture, if nothing here has that name."""
    try:
        values = tensor_metadata(content)
        name = (values or {})["model"]["name"]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return ""  # reading it says what is wrong
    known = isinstance(name, str) and name in models.names()
    return "" if known else f"its architecture '{name}' is not known here; a plugin may have it"


def _needs_code(metadata: CheckpointMetadata) -> str:
    """Return why a network cannot be built with what is installed here and named by the keeper."""
    model = metadata.model
    if isinstance(model, Factory) and not is_trusted(model.target.partition(":")[0]):
        return f"it is built by {model.target}, which is code outside cembench"
    if model.name in LIBRARIES and importlib.util.find_spec(model.name) is None:
        return f"it is built by {model.name}, which is not installed here"
    return ""


def _randomised(protocol: Protocol) -> str:
    return "its answers are random, and cannot be had twice" if protocol.passes > 1 else ""


def _require_protocol(
    record: Record, protocol: Protocol, allowed: Sequence[Protocol], checks: Checks
) -> None:
    """Refuse another protocol than the allowed ones; a limit of images is only told."""
    if not allowed:
        return
    same = [one for one in allowed if _without_limit(one) == _without_limit(protocol)]
    names = ", ".join(one.name for one in allowed)
    if not same:
        checks.fail("protocol", f"one of {names}", _difference(protocol, allowed))
        return
    checks.require("protocol", True, f"one of {names}", same[0].name)
    if protocol.limit != same[0].limit:
        asked = same[0].limit or "all"
        checks.note("attacked images", f"{asked}, as {same[0].name} says", protocol.limit or "all")


def _without_limit(protocol: Protocol) -> dict[str, object]:
    return {**protocol.deciding, "limit": None}


def _difference(protocol: Protocol, allowed: Sequence[Protocol]) -> str:
    """Say what differs from the allowed protocol of the most similar name."""
    nearest = max(allowed, key=lambda one: (protocol.name.startswith(one.name), len(one.name)))
    rows = compared("", _without_limit(nearest), _without_limit(protocol))[1:]
    told = [f"{row.figure[2:]} is {row.again}, not {row.recorded}" for row in rows[:ENOUGH]]
    more = f" and {len(rows) - ENOUGH} more" if len(rows) > ENOUGH else ""
    return f"{protocol.name}: unlike {nearest.name}, {'; '.join(told)}{more}"


def _require_evidence(record: Record, path: Path, protocol: Protocol, checks: Checks) -> None:
    """Refuse missing files of evidence, and ones that nothing would read."""
    kept = {file.name for file in RunLayout.adversarial(path).glob("*")}
    classifier = record.kind == "classifier"
    runs = protocol.runs if classifier else []
    wanted = {f"{file_name(run.title)}.safetensors" for run in runs}
    checks.require("files of adversarial images", kept == wanted, _listed(wanted), _listed(kept))
    _require_samples(record, path, protocol, checks)
    buffer = "there" if RunLayout.of_record(path).buffer.exists() else NO_FILE
    checks.equal("replay buffer", "there" if "buffer" in record.inputs else NO_FILE, buffer)


def _require_samples(record: Record, path: Path, protocol: Protocol, checks: Checks) -> None:
    files = {file.name for file in RunLayout.samples(path).glob("*")}
    drawn, (titles, needed) = sample_files(path), _titles(record, protocol)
    checks.require("samples", needed <= {*drawn} <= titles, _listed(needed), _listed(drawn))
    numbered = {f"{title}.{n}.safetensors" for title in drawn for n in range(drawn[title])}
    found = _listed(files - numbered)
    checks.require("numbers of files of samples", files == numbered, "0, 1, 2, …", found)


def sample_files(path: Path) -> Counter[str]:
    """Return the number of files of samples beside a record, by the title of their sampler."""
    return Counter(file.name.rsplit(".", 2)[0] for file in RunLayout.samples(path).glob("*"))


def _titles(record: Record, protocol: Protocol) -> tuple[set[str], set[str]]:
    """Return what samples may be called, and of what there have to be some."""
    found = {} if record.generation is None else record.generation.samplers
    needed = {title for title, figures in found.items() if figures.error is None}
    changes = set(protocol.counterfactuals.searches()) if protocol.counterfactuals else set()
    drawn = {one.title for one in protocol.samples.samplers} if protocol.samples else set()
    return drawn | changes | needed, needed | changes


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
