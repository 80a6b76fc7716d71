"""Submission of a run: an entry folder with everything that a keeper needs to recount it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cembench.evaluation.artifacts import require_artifacts
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record
from cembench.interop.exporting import find_record
from cembench.interop.submission.card import write_card
from cembench.interop.submission.checks import Checks, Refused
from cembench.interop.submission.claim import Claim, read_claim
from cembench.interop.submission.entry import FACTS, EntryFacts, unknown_places
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files import sha256, write_bytes
from cembench.util.files.folders import new_folder
from cembench.util.files.layout import RunLayout
from cembench.util.shipped import shipped


@dataclass(frozen=True)
class Submitted:
    """A written entry.

    Attributes:
        folder: where it lies.
        notes: what a keeper will be told, besides figures.
    """

    folder: Path
    notes: list[str]


def submit(
    run: Path,
    to: Path,
    *,
    licence: str,
    contact: str,
    record: Path | None = None,
    authors: str = "",
    link: str = "",
    name: str = "",
    force: bool = False,
) -> Submitted:
    """Write the entry of a run, whole or not at all.

    Args:
        run: a run folder, or a checkpoint; a folder with records alone of a network in memory.
        to: the folder of the entry.
        licence: of all its files, an SPDX expression.
        contact: whom to ask about it.
        record: the record; unless given, the one with most images under AutoAttack.
        authors: whose work it is.
        link: where it is described.
        name: of the entry; that of the folder unless given.
        force: replace an entry that is there.

    Raises:
        CembenchError: when a keeper could not accept it, or it cannot be written.
    """
    said = {"licence": licence, "contact": contact, "authors": authors, "link": link}
    facts = EntryFacts.parse({**said, "name": name or to.absolute().name, "files": {}})
    if to.exists() and not (force and _is_entry(to)):
        remedy = "give --force to replace it" if _is_entry(to) else "choose another folder"
        raise CembenchError(f"{to}: exists already; {remedy}")
    path, checkpoint = _record_of(run, record)
    found = load_record(path)
    if (measured := _measured(found)) is not None:
        require_artifacts(path, measured)
    with new_folder(to.absolute(), replace=force) as draft:
        if draft is None:
            raise CembenchError(f"{to}: exists by now; choose another folder")
        notes = _write(draft, found, path, checkpoint, facts)
    return Submitted(to, notes)


def _is_entry(folder: Path) -> bool:
    return (folder / FACTS).is_file()


def _record_of(run: Path, given: Path | None) -> tuple[Path, Path | None]:
    """Return the record, and the checkpoint if there is one."""
    layout = RunLayout.at(run)
    if layout.checkpoint.exists():
        return find_record(ModelSource.at(run), given)[1], layout.checkpoint
    places = [given] if given is not None else layout.records()
    if not places:
        raise CembenchError(f"{run}: no records; run `cembench eval` with --save-adversarial")
    if len(places) > 1:
        raise CembenchError(f"{run}: {len(places)} records; choose one with --record")
    return places[0], None


def _measured(record: Record) -> Protocol | None:
    """Return the part of the protocol that a record has figures of, if any."""
    part = Protocol.parse(record.protocol).measured_of(record.kind) if not record.error else None
    return part.without("samples") if part and "samples" in record.not_applicable else part


def _write(
    draft: Path, record: Record, path: Path, checkpoint: Path | None, facts: EntryFacts
) -> list[str]:
    """Write the files of an entry, look at them as a keeper would, and return what is to say."""
    for source, place in _files(path, checkpoint, RunLayout(draft), record):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    write_card(draft, record, facts)
    claim, notes = _as_keeper(draft)
    places = sorted(file for file in draft.rglob("*") if file.is_file())
    files = {file.relative_to(draft).as_posix(): sha256(file) for file in places}
    if unknown := unknown_places(files):
        raise CembenchError(f"{unknown[0]}: a name that no entry may have; rename it and evaluate")
    write_bytes(draft / FACTS, facts.model_copy(update={"files": files}).text())
    return [*notes, *_told(claim)]


def _files(
    path: Path, checkpoint: Path | None, entry: RunLayout, record: Record
) -> Iterator[tuple[Path, Path]]:
    """Yield each file of a record and its place in the entry, under the name of the protocol."""
    place = entry.record(str(record.protocol.get("name")))
    yield path, place
    if checkpoint is not None:
        yield checkpoint, entry.checkpoint
        buffer = RunLayout.at(checkpoint).buffer
        if buffer.exists() and "buffer" in record.inputs:
            yield buffer, entry.buffer
    if record.kind == "classifier":
        yield RunLayout.table(path), RunLayout.table(place)
    for folder in (RunLayout.adversarial, RunLayout.samples):
        for file in sorted(folder(path).glob("*.safetensors")):
            yield file, folder(place) / file.name


def _as_keeper(draft: Path) -> tuple[Claim, list[str]]:
    """Check what needs neither data nor network.

    Raises:
        CembenchError: saying all that a keeper would refuse.
    """
    checks = Checks(str(draft))
    try:
        claim = read_claim(draft, (), checks)
    except Refused:
        reasons = "; ".join(row.reason for row in checks.failed)
        raise CembenchError(f"a keeper would refuse this: {reasons}") from None
    return claim, [row.reason for row in checks.notes]


def _told(claim: Claim) -> Iterator[str]:
    protocol = claim.protocol
    if claim.why_not:
        yield f"it can only be accepted as 'not re-run': {claim.why_not}"
    if protocol.name not in shipped("protocol"):
        images = f" on {protocol.limit} images" * (protocol.limit is not None)
        yield f"protocol {protocol.name}{images} is no shipped one: the keeper has to allow it"
