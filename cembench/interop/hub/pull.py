"""Pull: a pushed run as a run folder."""

from __future__ import annotations

from pathlib import Path

from cembench.interop.hub.address import address_of, local_folder
from cembench.interop.hub.fetch import fetch
from cembench.interop.hub.manifest import MANIFEST, Part
from cembench.interop.hub.store import Store
from cembench.interop.hub.stores import store_of
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes
from cembench.util.files.folders import new_folder
from cembench.util.files.layout import CHECKPOINT


def pull(address: str, out: str | Path | None = None, *, resume_state: bool = False) -> Path:
    """Fetch a pushed run into a run folder, and return the folder.

    Every file is compared with the manifest. The folder appears when all is there, or not at all.

    Args:
        address: `hf://USER/NAME@REVISION`, or any address that fsspec knows.
        out: the new folder; `runs/NAME` unless given.
        resume_state: fetch also the state that training goes on from, if it was pushed. It is a
            pickle, of which only tensors and numbers are ever read.

    Raises:
        CembenchError: when there is no such run, a file is not what the manifest says, or
            something is at `out` already.
    """
    store = store_of(address_of(address))
    place = Path("runs") / store.name if out is None else local_folder(out)
    if place.exists():
        raise _taken(place)
    found = store.manifest()
    if found is None:
        raise _no_run(store)
    if store.file:
        raise CembenchError(f"{store.address}: inside a run; pull the whole run")
    manifest, content = found
    with new_folder(place) as part:
        if part is None:
            raise _taken(place)
        fetch(part, store, manifest.chosen(Part.RESUME if resume_state else Part.ALL))
        write_bytes(part / MANIFEST, content)
    return place


def _taken(place: Path) -> CembenchError:
    return CembenchError(f"{place}: there is something already; choose another --out")


def _no_run(store: Store) -> CembenchError:
    if store.size(store.file or CHECKPOINT) is None:
        return store.missing(MANIFEST)
    return CembenchError(
        f"{store.address}: no {MANIFEST} here, so no run that was pushed whole; commands read it "
        "as a checkpoint, and `cembench import --weights` takes weights of others"
    )
