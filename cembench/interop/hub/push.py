"""Push: a finished run, whole, to the Hugging Face hub or to a store that fsspec reaches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from cembench.evaluation.record.files import load_beside
from cembench.interop.exporting import export
from cembench.interop.hub.address import HUGGING_FACE, Address, address_of, is_address
from cembench.interop.hub.manifest import MANIFEST, Entry, Manifest, Part, part_of
from cembench.interop.hub.stores import store_of
from cembench.models.metadata import CheckpointMetadata, read_metadata
from cembench.util.errors import CembenchError, blaming
from cembench.util.files import sha256
from cembench.util.files.layout import CHECKPOINT, RunLayout
from cembench.util.files.locks import locked
from cembench.util.files.names import file_name

_PATH = re.compile(r"[/~\\]|[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class Package:
    """What a push sends.

    Attributes:
        files: the files, by their paths in the run folder.
        manifest: their sizes and checksums.
        left_out: what stays in the run folder, such as logs.
        paths: folders of this machine that the files name, by where they say so.
    """

    files: Mapping[str, Path]
    manifest: Manifest
    left_out: tuple[str, ...]
    paths: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.bytes for entry in self.manifest.files.values())


def push(
    run: str | Path,
    to: str,
    *,
    unfinished: bool = False,
    resume_state: bool = False,
    force: bool = False,
    private: bool = False,
    record: str | Path | None = None,
    fields: Mapping[str, object] | None = None,
    tell: Callable[[Package], bool] = lambda package: True,
) -> str:
    """Push a run, and return the address to cite: on the Hugging Face hub that of the commit.

    `pull` gives back a run folder on which `verify`, `report` and `leaderboard` work.

    Args:
        run: the run folder.
        to: `hf://USER/NAME`, `hf://USER/NAME@BRANCH`, or any address that fsspec can write to.
        unfinished: push also a run whose training is not finished.
        resume_state: push also what training goes on from.
        force: replace what is there.
        private: make a new repository on the hub private.
        record: the record that the model card is made from; unless given, the one with most images
            under AutoAttack.
        fields: what only the author knows, for the card: `name`, `authors`, `link`, `licence`.
        tell: is told what would be sent, and returns whether it is sent. An empty address is
            returned where it is not.

    Raises:
        CembenchError: for a run that something is at, a damaged record, a missing package, or an
            address that cannot be written or is taken.
    """
    address = address_of(to)
    store = store_of(address)
    layout, metadata = _finished(run, unfinished)
    found, left_out = _divided(layout, Part.RESUME if resume_state else Part.ALL)
    records = [load_beside(layout.folder / name) for name in found if _is_record(name)]
    if any(one.replaced for one in records):
        raise CembenchError(f"{run}: has records of other weights than its own; evaluate it again")
    with TemporaryDirectory() as made:
        if record or records or address.scheme == HUGGING_FACE:  # which shows the card
            found |= _card(layout, Path(made), address, record, fields)
        said = {CHECKPOINT: metadata, **{one.protocol["name"]: one for one in records}}
        paths = dict(_paths({name: one.dump() for name, one in said.items()}))
        package = Package(found, _manifest(layout, found), left_out, paths)
        if not tell(package):
            return ""
        return store.write(package.files, package.manifest, force=force, private=private)


def _finished(run: str | Path, unfinished: bool) -> tuple[RunLayout, CheckpointMetadata]:
    """Return the layout and the metadata of a run that nothing is at.

    Raises:
        CembenchError: when its training is not finished, unless that is allowed.
    """
    if is_address(run):
        raise CembenchError(f"{run}: pull it first; push takes a run folder of this machine")
    layout = RunLayout.at(Path(run))
    _require_idle(layout)
    metadata = read_metadata(layout.checkpoint)
    if layout.own_name:
        raise CembenchError(
            f"{run}: one of several checkpoints in a folder; push takes a run folder, with "
            f"{CHECKPOINT} in it"
        )
    if not metadata.finished and not unfinished:
        raise CembenchError(
            f"{run}: its training is not finished; --resume it, or push it with --unfinished"
        )
    return layout, metadata


def _card(
    layout: RunLayout,
    made: Path,
    address: Address,
    record: str | Path | None,
    fields: Mapping[str, object] | None,
) -> dict[str, Path]:
    """Return the files of a model card, which are made in a folder."""
    given = {"address": str(address) if address.scheme == HUGGING_FACE else "", **(fields or {})}
    export(layout.folder, "huggingface", made, record=record, fields=given)
    return {path.name: path for path in made.iterdir() if path.name != CHECKPOINT}


def _manifest(layout: RunLayout, files: Mapping[str, Path]) -> Manifest:
    entries = {
        name: Entry(bytes=path.stat().st_size, sha256=sha256(path)) for name, path in files.items()
    }
    with blaming(layout.folder):
        return Manifest.parse({"name": file_name(layout.name), "files": entries})


def _require_idle(layout: RunLayout) -> None:
    """Refuse a folder that another process trains or evaluates in."""
    for lock in (layout.lock, *layout.folder.glob("eval/.*.lock")):
        if lock.exists():
            with locked(lock, str(layout.folder), patience=0):
                pass


def _divided(layout: RunLayout, part: Part) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the files of a run up to a part, by their paths, and what else lies in its folder.

    Raises:
        CembenchError: for a link that leads out of the folder, which may be another's work.
    """
    found, others = {}, []
    inside = layout.folder.resolve()
    for path in sorted(layout.folder.rglob("*")):
        name = path.relative_to(layout.folder).as_posix()
        if not path.resolve().is_relative_to(inside):
            raise CembenchError(
                f"{path}: leads out of the run folder; put the content itself there"
            )
        if not path.is_file() or any(one.startswith(".") for one in PurePath(name).parts):
            continue
        own = part_of(name)
        if name == MANIFEST or (own is Part.RECORDS and "/" not in name):
            continue  # of an earlier push, and made again
        if own is None or own > part:
            others.append(name)
        else:
            found[name] = path
    return found, tuple(others)


def _is_record(name: str) -> bool:
    return name.startswith("eval/") and name.endswith(".json")


def _paths(values: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the paths of this machine among plain values, by where they stand."""
    if isinstance(values, dict | list):
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        for key, value in pairs:
            yield from _paths(value, f"{place}.{key}".strip("."))
    elif isinstance(values, str) and _PATH.match(values):
        yield place, values
