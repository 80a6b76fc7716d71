"""Image files of one's own: what the data sets `folder` and `parquet` share."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from cembench.data import DataSettings, own_name
from cembench.data.labels import LabelSource, label_field
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Name, Positive, optional_field

with lazy_imports():
    from cembench.data.files.decode import Decoder, mode_of
    from cembench.data.files.reader import Reader, content_of
    from cembench.data.files.source import Source
    from cembench.data.split import Split
    from cembench.data.store.open import encoded_split, open_split


Side = Annotated[int, Field(ge=1, le=4096)]  # in pixels


class LocalData(DataSettings):
    """Local images of one size, or brought to one by scaling and a crop of the centre.

    Attributes:
        root: the folder with the data.
        alias: the name of the data set in results; the name of the folder unless given.
        mode: `RGB` or `L` (grey); that of the first image unless given.
        size: height and width to bring every image to: `resize` and `centre_crop` of that size.
        resize: pixels of the shorter side, to which images are scaled, antialiased.
        centre_crop: height and width of what is cut from the centre, after `resize`.
        interpolation: of `size` and `resize`.
        store: where decoded images are kept: in `memory`, or on `disk`, in the user's cache; `auto`
            goes by `memory_limit`. It does not affect results, so it is no part of what identifies
            a run.
        memory_limit: GiB of decoded images of a split, at most, that `auto` keeps in memory. It is
            no part of what identifies a run either.
        cache: whether decoded images are kept at all. Where they are not, images are decoded each
            time they are used, and identified by their files: the fingerprint is another one.
        pseudo_labels: what labels the training images, which then need no labels of their own: the
            checkpoint of a classifier, or a label source.
        workers: processes that decode ahead where nothing is kept; 0 decodes when images are asked
            for. As many as there are cores, up to eight, unless given. It does not affect results.
    """

    root: str
    alias: Annotated[Name, AfterValidator(own_name)]
    mode: Literal["RGB", "L"] | None = None
    size: Side | None = None
    resize: Side | None = optional_field(None)
    centre_crop: Side | None = optional_field(None)
    interpolation: Literal["bicubic", "bilinear"] = optional_field("bicubic")
    store: Literal["auto", "memory", "disk"] = Field("auto", exclude=True)
    memory_limit: Positive = Field(0.25, exclude=True)
    cache: bool = optional_field(True)
    pseudo_labels: Annotated[SerializeAsAny[LabelSource] | None, label_field()] = optional_field(
        None
    )
    workers: Annotated[int, Field(ge=0, le=256)] | None = Field(None, exclude=True)

    @property
    def title(self) -> str:
        """The alias."""
        return self.alias

    @property
    def named_folders(self) -> tuple[Path, ...]:
        """The folder of the images, and what labels them."""
        labels = None if self.pseudo_labels is None else self.pseudo_labels.path
        return (*super().named_folders, *([] if labels is None else [labels]))

    def resolved(self) -> Self:
        """Return the same data set with what identifies its pseudo-labels."""
        if self.pseudo_labels is None:
            return self
        return self.model_copy(update={"pseudo_labels": self.pseudo_labels.resolved()})

    @model_validator(mode="before")
    @classmethod
    def _folder_name(cls, values: Any) -> Any:
        named = not cls.model_fields["alias"].is_required()
        if named or not isinstance(values, dict) or not isinstance(values.get("root"), str):
            return values
        try:
            folder = Path(values["root"]).expanduser().resolve().name
        except (RuntimeError, OSError) as error:  # no such user, or links in a circle
            raise ConfigError.single(f"no folder {values['root']}: {error}", "root") from None
        return {"alias": re.sub(r"[^A-Za-z0-9_.]+", "-", folder).strip("-.") or "data", **values}

    @model_validator(mode="after")
    def _one_way_to_a_size(self) -> Self:
        given = self.model_fields_set & {"resize", "centre_crop"}
        if self.size is not None and any(getattr(self, key) is not None for key in given):
            raise ConfigError.single("stands for resize and centre_crop; give it or them", "size")
        if self.resize is not None and (self.centre_crop or 0) > self.resize:
            raise ConfigError.single(f"greater than resize={self.resize}", "centre_crop")
        if not self.cache and self.store != "auto":
            raise ConfigError.single("cache: false keeps no decoded images", "store")
        return self

    def load(self, split: Literal["train", "test"]) -> Split:
        """Return one split; it is decoded first unless it was kept on disk before."""
        return self.prepare(split, verify=False)

    def prepare(self, split: Literal["train", "test"], verify: bool) -> Split:
        """Return one split; what was kept of it on disk is checked first."""
        found = self._opened(split, verify)
        if split == "test" or self.pseudo_labels is None:
            return found
        return self.pseudo_labels.label(found)

    def _opened(self, split: str, verify: bool) -> Split:
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise CembenchError(f"data.root: no folder {root}; set data.root to where the data is")
        try:
            reader = self.reader(root, split)
            title = f"{root}, {split} split"
            if not self.cache:
                return encoded_split(reader, self.workers, title)
            return open_split(reader, self.store, self.memory_limit * 2**30, title, verify)
        except CembenchError as error:
            raise CembenchError(f"{root}, {split} split: {error}") from error

    def reader(self, root: Path, split: str) -> Reader:
        """Return what decodes the images of a split when it is asked for them.

        Raises:
            CembenchError: when files are missing or do not fit together.
        """
        labelled = split == "test" or self.pseudo_labels is None
        source = self.source(root, split) if labelled else self.unlabelled(root, split)
        return self._reader(source)

    @abstractmethod
    def source(self, root: Path, split: str) -> Source:
        """Return the encoded images of a split.

        Raises:
            CembenchError: when files are missing or do not fit together.
        """

    def unlabelled(self, root: Path, split: str) -> Source:
        """Return the encoded images of a split whose labels do not count, and may be missing.

        Raises:
            CembenchError: when files are missing.
        """
        return self.source(root, split)

    def _reader(self, source: Source) -> Reader:
        if not len(source):
            raise CembenchError("holds no images")
        if twice := [name for name, times in Counter(source.classes).items() if times > 1]:
            raise CembenchError(f"two classes are called '{twice[0]}'; rename one")
        mode = self.mode or mode_of(content_of(source, 0), source.name(0))
        resize, crop = self.resize, self.centre_crop
        if self.size is not None:
            resize = crop = self.size
        return Reader(source, Decoder(mode, resize, crop, self.interpolation))
