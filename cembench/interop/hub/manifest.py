"""Manifest of a pushed run: its files with sizes and SHA-256, written after all others."""

from __future__ import annotations

import json
import re
from enum import IntEnum
from typing import Annotated, Any

from pydantic import Field, field_validator

from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.names import file_name, require_distinct
from cembench.util.settings import Name, Settings
from cembench.util.version import __version__

MANIFEST = "cembench.json"
FORMAT = 1
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
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(Settings):
    """The files of a run, as they were pushed.

    Attributes:
        format: version of this format.
        name: name of the run.
        version: version of cembench that wrote it.
        files: all files but this one, by their paths in the run folder.
    """

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
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

    def text(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(self.dump(), indent=1, ensure_ascii=False).encode() + b"\n"


def part_of(path: str) -> Part | None:
    """Return the part of a run that a file belongs to; None for another file."""
    return next((part for part, form in LAYOUT.items() if re.fullmatch(form, path)), None)


def read_manifest(content: bytes, source: object) -> Manifest:
    """Read what `Manifest.text` wrote.

    Raises:
        CembenchError: naming `source`, when it is damaged, hostile, or of a later format.
    """
    where = f"{source}: its {MANIFEST}"
    try:
        values: Any = json.loads(content)
        version = values["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CembenchError(f"{where} is damaged; push the run again") from error
    if isinstance(version, int) and version > FORMAT:
        raise CembenchError(f"{where} has format {version}, of a later cembench: update this one")
    try:
        return Manifest.parse(values)
    except (ConfigError, UnicodeError) as error:
        raise CembenchError(f"{where} cannot be used: {error}") from error
