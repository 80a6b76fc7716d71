"""Manifest of a pushed run: its files with sizes and SHA-256, written after all others."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Annotated

from pydantic import Field, field_validator

from cembench.util.files.json_file import JsonFile, Sha256
from cembench.util.files.names import file_name, require_distinct
from cembench.util.settings import Name, Settings
from cembench.util.version import __version__

MANIFEST = "cembench.json"
LONGEST = 32 << 20  # bytes
_PART = r"[^/]+"


class Part(IntEnum):
    """Parts of a run, of which each holds those before it."""

    NETWORK = 0
    RECORDS = 1
    ALL = 2
    RESUME = 3


# The files of a run that are pushed and pulled, as whole paths.
LAYOUT = {
    Part.NETWORK: r"model\.safetensors|buffer\.safetensors|config\.yaml|history\.csv",
    Part.RECORDS: (
        r"README\.md|config\.json|record\.json|samples\.png"
        rf"|eval/{_PART}\.(json|parquet|png)|samples/{_PART}\.png"
    ),
    Part.ALL: rf"(eval/{_PART}\.adversarial|samples/{_PART})/{_PART}\.safetensors",
    Part.RESUME: r"last\.ckpt",
}


class Entry(Settings):
    """A file of a run.

    Attributes:
        bytes: its size.
        sha256: its SHA-256.
    """

    bytes: Annotated[int, Field(ge=0, lt=2**63)]
    sha256: Sha256


class Manifest(JsonFile):
    """The files of a run, as they were pushed.

    Attributes:
        format: version of the file.
        name: name of the run.
        version: version of cembench that wrote it.
        files: all files but this one, by their paths in the run folder.
    """

    name: Name
    version: Annotated[str, Field(max_length=100)] = __version__
    files: Annotated[dict[str, Entry], Field(max_length=100_000)]

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, Entry]) -> dict[str, Entry]:
        for path in files:
            for part in path.split("/"):  # neither `..`, nor hidden, nor empty
                file_name(part)
        require_distinct(files)
        return files

    def chosen(self, part: Part) -> dict[str, Entry]:
        """Return the files up to a part of the run; what is no file of a run is left out."""
        parts = {path: part_of(path) for path in self.files}
        wanted = {path for path, own in parts.items() if own is not None and own <= part}
        return {path: entry for path, entry in self.files.items() if path in wanted}


def part_of(path: str) -> Part | None:
    """Return the part of a run that a file belongs to; None for another file."""
    return next((part for part, form in LAYOUT.items() if re.fullmatch(form, path)), None)
