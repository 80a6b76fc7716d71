"""Addresses where a checkpoint or run is named: fetched into the user's cache, and read there."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from cembench.interop.hub.address import address_of, is_address
from cembench.interop.hub.fetch import fetch, require_room, transfer
from cembench.interop.hub.manifest import Manifest, Part, part_of
from cembench.interop.hub.store import Store
from cembench.interop.hub.stores import store_of
from cembench.training.config import Experiment
from cembench.util.errors import CembenchError, blaming
from cembench.util.files import replacing, sha256
from cembench.util.files.fetched import note
from cembench.util.files.folders import new_folder
from cembench.util.files.layout import CHECKPOINT, user_cache
from cembench.util.files.names import file_name


def local(path: str | Path, part: Part = Part.NETWORK) -> Path:
    """Return a path as it is; of an address, where its content lies in the user's cache now.

    Args:
        path: a path or an address.
        part: how much of a run is fetched.

    Raises:
        CembenchError: when it cannot be fetched, or is not what the manifest says.
    """
    if not is_address(path):
        return Path(path)
    store = store_of(address_of(path))
    found = store.manifest()
    place = _single(store) if found is None else _run(store, *found, part)
    note(store.address.url, place)
    return place


def placed(path: str | Path) -> Path:
    """Return a path as it is; of an address, where its checkpoint was put below `runs`.

    An evaluation writes beside its checkpoint, which must not be in the cache.

    Raises:
        CembenchError: as `local`, and when something else is in that folder.
    """
    if not is_address(path):
        return Path(path)
    source = local(path)
    file = source / CHECKPOINT if source.is_dir() else source
    folder = Path("runs") / file.parent.name
    with new_folder(folder) as part:
        if part is not None:
            _copy(file, source, part)
    target = folder / file.name
    if not target.is_file() or sha256(target) != sha256(file):
        raise CembenchError(
            f"{address_of(path)}: its record would go to {folder}, where something else is; "
            "`cembench pull` it with `--out runs/OTHER`, and evaluate that"
        )
    return folder if file.name == CHECKPOINT else target


def placed_row(text: str) -> str:
    """Return `CHECKPOINT` or `NAME=CHECKPOINT` with what `placed` makes of an address.

    Raises:
        CembenchError: as `placed`.
    """
    name, _, path = text.partition("=")
    if is_address(text):
        return str(placed(text))
    return f"{name}={placed(path)}" if is_address(path) else text


def _copy(file: Path, source: Path, folder: Path) -> None:
    """Copy a checkpoint into a folder, with what training left beside it if it is that of a run."""
    for one in file.parent.iterdir():
        if one == file or (source.is_dir() and part_of(one.name) is Part.NETWORK):
            shutil.copyfile(one, folder / one.name)


def fetch_start(config: Experiment) -> None:
    """Fetch the pretrained weights of an experiment, if it names an address.

    Raises:
        CembenchError: as `local`.
    """
    if config.pretrained is not None:
        local(config.pretrained.checkpoint)


def _run(store: Store, manifest: Manifest, content: bytes, part: Part) -> Path:
    """Return a run, or a file of it, in the cache, with the files up to a part."""
    folder = _folder(store, content)
    files = manifest.chosen(part)
    if store.file:
        known = manifest.chosen(Part.ALL)
        if store.file not in known:
            raise CembenchError(f"{store.address}: the run has no {store.file}")
        files |= {store.file: known[store.file]}
    fetch(folder, store, {n: e for n, e in files.items() if not (folder / n).is_file()})
    return folder / store.file


def _single(store: Store) -> Path:
    """Return a file that is part of no pushed run, in the cache."""
    file = store.file or CHECKPOINT
    size = store.size(file)
    if size is None:
        raise store.missing(file)
    with blaming(store.address):
        name = file_name(file.rpartition("/")[2])
    key = json.dumps([store.address.url, file, store.version(file)])
    place = _folder(store, key.encode()) / name
    if not place.is_file():
        require_room(place.parent, size, store)
        with transfer(store, "fetching", size) as advance, replacing(place) as target:
            for part in store.parts(file, size):
                target.write(part)
                advance(len(part))
    return place


def _folder(store: Store, key: bytes) -> Path:
    """Return a folder of the cache, whose last part is the name of the run.

    Its digest is so long that no stranger finds two keys with the same one.
    """
    return user_cache() / "hub" / hashlib.sha256(key).hexdigest()[:40] / store.name
