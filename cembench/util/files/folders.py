"""Folders, written whole or not at all."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cembench.util.files import unwritable
from cembench.util.files.locks import locked


@contextmanager
def new_folder(place: Path, *, replace: bool = False) -> Iterator[Path | None]:
    """Yield a neighbour of a folder to be, which takes its place when all went well.

    One process at a time does so; what a killed one left is removed. Where the folder is there by
    now, None is yielded, unless it is to be replaced: then it goes last.

    Raises:
        CembenchError: when it cannot be written.
    """
    part, old = (place.with_name(f".{place.name}.{end}") for end in ("part", "old"))
    with locked(place.with_name(f".{place.name}.lock"), str(place), math.inf):
        if place.exists() and not replace:
            yield None
            return
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            yield part
            if place.exists():
                place.rename(old)
            part.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise unwritable(place, error) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
