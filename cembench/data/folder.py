"""Local images: class folders, or parquet files as on the Hugging Face hub."""

from __future__ import annotations

import io
import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import Field, field_validator, model_validator

from cembench.data import DataSettings, datasets
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.parquet import read_arrow
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Name

with lazy_imports():
    import torch

    from cembench.data.split import Split

Item = tuple[str, Any, int]


class LocalData(DataSettings):
    """Local images of one size, or brought to `size`×`size` by scaling and a centre crop.

    Attributes:
        root: the folder with the data.
        alias: the name of the data set in results; the name of the folder unless given.
        mode: `RGB` or `L` (grey); that of the first image unless given.
        size: height and width to bring every image to.
    """

    root: str
    alias: Name
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

    @field_validator("alias")
    @classmethod
    def _own(cls, alias: str) -> str:
        if alias in datasets.names():
            raise ValueError(f"'{alias}' is a data set of cembench; choose another")
        return alias

    def load(self, split: Literal["train", "test"]) -> Split:
        """Read one split."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise CembenchError(f"data.root: no folder {root}; set data.root to where the data is")
        try:
            items, classes = self._items(root, split)
            if twice := [name for name, times in Counter(classes).items() if times > 1]:
                raise CembenchError(f"two classes are called '{twice[0]}'; rename one")
            images, labels = self._decode(items)
            return Split(images, torch.tensor(labels), classes)
        except CembenchError as error:
            raise CembenchError(f"{root}, {split} split: {error}") from error

    @abstractmethod
    def _items(self, root: Path, split: str) -> tuple[Iterable[Item], tuple[str, ...]]:
        """Return (name in messages, path or open file, label) of each image, and the classes."""

    def _decode(self, items: Iterable[Item]) -> tuple[torch.Tensor, list[int]]:
        arrays: list[np.ndarray] = []
        labels: list[int] = []
        mode = self.mode
        for name, source, label in items:
            try:
                with Image.open(source) as image:
                    if image.mode.startswith(("I", "F")):
                        raise CembenchError(f"{name} has more than 8 bits a channel; convert it")
                    mode = mode or ("L" if image.mode in ("1", "L") else "RGB")
                    array = np.asarray(self._fit(image.convert(mode)))
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError) as error:
                raise CembenchError(
                    f"{name}: not a readable image; replace or remove it"
                ) from error
            if arrays and array.shape != arrays[0].shape:
                height, width = array.shape[:2]
                first = f"{arrays[0].shape[1]}×{arrays[0].shape[0]}"
                raise CembenchError(
                    f"{name} has {width}×{height} pixels and the first image {first}; set data.size"
                )
            arrays.append(array)
            labels.append(label)
        if not arrays:
            raise CembenchError("holds no images")
        pixels = torch.from_numpy(np.stack(arrays))
        return (pixels[:, None] if mode == "L" else pixels.permute(0, 3, 1, 2)).contiguous(), labels

    def _fit(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        scale = self.size / min(image.size)
        width, height = (max(self.size, round(side * scale)) for side in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        return resized.crop((left, top, left + self.size, top + self.size))


class Folder(LocalData):
    """`root/train/CLASS/*.png` and `root/test/CLASS/*.png`, as torchvision's ImageFolder wants."""

    name: ClassVar[str] = "folder"

    def _items(self, root: Path, split: str) -> tuple[Iterable[Item], tuple[str, ...]]:
        from torchvision.datasets import ImageFolder

        classes = tuple(sorted(p.name for p in (root / "train").glob("*") if p.is_dir()))
        try:
            found = ImageFolder(root / split)
        except FileNotFoundError as error:
            raise CembenchError(str(error).splitlines()[0]) from error
        if unknown := set(found.classes) - set(classes):
            raise CembenchError(f"class '{sorted(unknown)[0]}' is not among the training classes")
        label = {index: classes.index(name) for name, index in found.class_to_idx.items()}
        return ((path, path, label[index]) for path, index in found.samples), classes


class Parquet(LocalData):
    """`root/train*.parquet` and `root/test*.parquet` with an image column and a label column.

    Attributes:
        image: the image column, a struct of `bytes` and `path`; the first struct unless given.
        label: the column of integer labels.
        classes: class names in label order; read from the file's Hugging Face metadata, else
            the labels themselves.
    """

    name: ClassVar[str] = "parquet"
    image: str | None = None
    label: str = "label"
    classes: list[str] | None = None

    def _items(self, root: Path, split: str) -> tuple[Iterable[Item], tuple[str, ...]]:
        labels, images, schema = self._table(root, split)
        classes = self.classes or _hub_classes(schema, self.label)
        if classes is None:
            training = labels if split == "train" else self._table(root, "train")[0]
            classes = [str(label) for label in range(max(training) + 1)]
        return _rows(images, labels), tuple(classes)

    def _table(self, root: Path, split: str) -> tuple[list[int], Any, Any]:
        import pyarrow as pa

        files = sorted(root.glob(f"{split}*.parquet"))
        if not files:
            raise CembenchError(f"no files {split}*.parquet")
        try:
            table = pa.concat_tables([read_arrow(file) for file in files])
        except (pa.ArrowException, OSError) as error:
            raise CembenchError(f"unreadable parquet: {str(error).splitlines()[0]}") from error
        image = self.image or next(
            (f.name for f in table.schema if pa.types.is_struct(f.type)), "image"
        )
        for column in (image, self.label):
            if column not in table.column_names:
                raise CembenchError(f"no column '{column}'; it has {table.column_names}")
        labels = table[self.label].to_pylist()
        if not labels:
            raise CembenchError("holds no images")
        if not all(isinstance(label, int) and label >= 0 for label in labels):
            raise CembenchError(f"column '{self.label}' holds labels that are not 0, 1, 2, …")
        return labels, table[image], table.schema


def _rows(images: Any, labels: list[int]) -> Iterator[Item]:
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        content = image.as_py()
        content = content.get("bytes") if isinstance(content, dict) else content
        yield f"row {row}", io.BytesIO(content if isinstance(content, bytes) else b""), label


def _hub_classes(schema: Any, column: str) -> list[str] | None:
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return list(features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return None
