"""JSON files of plain values, with the version of their format, that may come from strangers."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Self

from pydantic import Field

from cembench.util.errors import CembenchError, blaming
from cembench.util.settings import Settings

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class JsonFile(Settings):
    """Settings that are a file.

    Attributes:
        format: version of the file.
    """

    newest: ClassVar[int] = 1  # version that is known here
    format: Annotated[int, Field(ge=1)] = 1

    @classmethod
    def read(cls, content: bytes, source: object) -> Self:
        """Return what `text` wrote.

        Raises:
            CembenchError: naming `source`, when it is damaged, hostile, or of a later format.
        """
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CembenchError(f"{source}: no JSON, or nested too deep") from error
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version > cls.newest:
            raise CembenchError(f"{source}: format {version}, of a later cembench; update this one")
        with blaming(source):
            return cls.parse(values)

    def text(self) -> bytes:
        """Return the content of the file."""
        return json.dumps(self.dump(), indent=2, ensure_ascii=False).encode() + b"\n"
