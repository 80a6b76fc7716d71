"""Image files of one's own: what the data sets `folder` and `parquet` share."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from cembench.data import DataSettings, own_name
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Name

with lazy_imports():
    import torch

    from cembench.data.decode import Decoder, mode_of
    from cembench.data.source import Source
    from cembench.data.split import Split


class LocalData(DataSettings):
    """Local images of one size, or brought to `size`×`size` by scaling and a centre crop.

    Attributes:
        root: the folder with the data.
        alias: the name of the data set in results; the name of the folder unless given.
        mode: `RGB` or `L` (grey); that of the first image unless given.
        size: height and width to bring every image to.
    """

    root: str
    alias: Annotated[Name, AfterValidator(own_name)]
    mode: Literal["RGB", "L"] | None = None
    size: Annotated[int, Field(ge=1, le=4096)] | None = None

    @property
    def title(self) -> str:
        """The alias."""
        return self.alias

    @model_validator(mode="before")
    @classmethod
    def _folder_name(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("root"), str):
            return values
        try:
            folder = Path(values["root"]).expanduser().resolve().name
        except (RuntimeError, OSError) as error:  # no such user, or links in a circle
            raise ConfigError.single(f"no folder {values['root']}: {error}", "root") from None
        return {"alias": re.sub(r"[^A-Za-z0-9_.]+", "-", folder).strip("-.") or "data", **values}

    def load(self, split: Literal["train", "test"]) -> Split:
        """Read one split."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise CembenchError(f"data.root: no folder {root}; set data.root to where the data is")
        try:
            source = self.source(root, split)
            if twice := [name for name, times in Counter(source.classes).items() if times > 1]:
                raise CembenchError(f"two classes are called '{twice[0]}'; rename one")
            if not len(source):
                raise CembenchError("holds no images")
            return Split.of(self._decoded(source), torch.tensor(source.labels), source.classes)
        except CembenchError as error:
            raise CembenchError(f"{root}, {split} split: {error}") from error

    @abstractmethod
    def source(self, root: Path, split: str) -> Source:
        """Return the encoded images of a split.

        Raises:
            CembenchError: when files are missing or do not fit together.
        """

    def _decoded(self, source: Source) -> torch.Tensor:
        """Return all images, uint8, N×C×H×W."""
        mode = self.mode or mode_of(source.read(0), source.name(0))
        decoder = Decoder(mode, self.size)
        images = torch.empty(0, dtype=torch.uint8)
        for row in range(len(source)):
            image = torch.from_numpy(decoder.decode(source.read(row), source.name(row)))
            if row == 0:
                images = torch.empty((len(source), *image.shape), dtype=torch.uint8)
            if image.shape != images.shape[1:]:
                (height, width), (high, wide) = image.shape[1:], images.shape[2:]
                raise CembenchError(
                    f"{source.name(row)} has {width}×{height} pixels and the first image "
                    f"{wide}×{high}; set data.size"
                )
            images[row] = image
        return images
