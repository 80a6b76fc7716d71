"""Entry: a run folder for a shared board, with its evidence, its licence and whom to ask."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from cembench.util.errors import ConfigError
from cembench.util.files.json_file import JsonFile, Sha256
from cembench.util.files.layout import CHECKPOINT
from cembench.util.files.names import file_name
from cembench.util.settings import Name

FACTS = "entry.json"
CARD = "README.md"
BUFFER = "buffer.safetensors"
LARGEST = {FACTS: 2**22, CARD: 2**20, ".json": 2**22}  # bytes of files that are read as text


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("one line that can be shown, without blanks around it")
    return text


def _spdx(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9(][A-Za-z0-9.+() -]*", text):
        raise ValueError("give an SPDX expression, such as MIT or CC-BY-4.0")
    return text


Line = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Said = Annotated[Line, Field(min_length=1)]
Licence = Annotated[str, Field(max_length=200), AfterValidator(_spdx)]


class EntryFacts(JsonFile):
    """What an entry says of itself, in `entry.json`.

    Attributes:
        format: version of the file.
        name: of the entry, and of its folder on the board.
        licence: of the weights and all other files, an SPDX expression such as `MIT`.
        contact: whom to ask about it: an address, or a name on a hosting service.
        authors: whose work it is.
        link: where it is described.
        files: the SHA-256 of every other file, by its place in the entry.
    """

    name: Name
    licence: Licence
    contact: Said
    authors: Line = ""
    link: Line = ""
    files: dict[str, Sha256]


def unknown_places(places: Iterable[str]) -> list[str]:
    """Return the files among these that no entry has.

    An entry has one record, and beside it what belongs to a record of that name.
    """
    found = [PurePosixPath(place) for place in places]
    records = [path for path in found if len(path.parts) == 2 and _ends(path, "eval", ".json")]
    stem = records[0].stem if len(records) == 1 else ""
    return [str(path) for path in found if not _known(path, stem)]


def _known(path: PurePosixPath, stem: str) -> bool:
    try:
        file_name(path.name)
    except ConfigError:
        return False
    above = path.parent.parts
    if not above:
        return path.name in (FACTS, CARD, CHECKPOINT, BUFFER)
    if above == ("eval",):
        return bool(stem) and path.name in (f"{stem}.json", f"{stem}.parquet")
    folders = (("eval", f"{stem}.adversarial"), ("samples", stem))
    return bool(stem) and path.suffix == ".safetensors" and above in folders


def _ends(path: PurePosixPath, folder: str, suffix: str) -> bool:
    return path.parts[0] == folder and path.suffix == suffix
