"""Parquet files of images, as on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from cembench.data.image_files import LocalData
from cembench.data.labels import UNLABELLED
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import numpy as np

    from cembench.data.files.parquet_source import ParquetSource, opened, reading
    from cembench.data.files.source import Source


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

    def source(self, root: Path, split: str) -> Source:
        """Return the images of a split."""
        names = _names(root, split)
        with reading(root / names[0]), opened(root / names[0]) as file:
            schema = file.schema_arrow
        labels = self._labels(root, names)
        classes = self.classes or _hub_classes(schema, self.label)
        if classes is None:
            training = labels if split == "train" else self._labels(root, _names(root, "train"))
            classes = [str(label) for label in range(int(training.max()) + 1)]
        return ParquetSource(root, labels, tuple(classes), names, self._image(schema))

    def unlabelled(self, root: Path, split: str) -> Source:
        """Return the images of a split, whatever other columns there are."""
        names, images = _names(root, split), 0
        for name in names:
            with reading(root / name), opened(root / name) as file:
                schema, images = file.schema_arrow, images + file.metadata.num_rows
        labels = np.zeros(images, np.int64)
        return ParquetSource(root, labels, UNLABELLED, names, self._image(schema))

    def _image(self, schema: Any) -> str:
        import pyarrow as pa

        structs = (field.name for field in schema if pa.types.is_struct(field.type))
        return self.image or next(structs, "image")

    def _labels(self, root: Path, names: tuple[str, ...]) -> np.ndarray:
        found = [labels for name in names for labels in self._labels_of(root / name)]
        if not sum(map(len, found)):
            raise CembenchError("holds no images")
        return np.concatenate(found)

    def _labels_of(self, path: Path) -> Iterator[np.ndarray]:
        import pyarrow as pa

        with reading(path), opened(path) as file:
            for column in (self._image(file.schema_arrow), self.label):
                if column not in file.schema_arrow.names:
                    raise CembenchError(f"no column '{column}'; it has {file.schema_arrow.names}")
            for part in file.read([self.label], use_threads=False)[self.label].chunks:
                whole = pa.types.is_integer(part.type) and not part.null_count
                if not whole or (len(part) and part.to_numpy().min() < 0):
                    raise CembenchError(
                        f"column '{self.label}' holds labels that are not 0, 1, 2, …"
                    )
                yield part.to_numpy().astype(np.int64)


def _names(root: Path, split: str) -> tuple[str, ...]:
    names = tuple(sorted(file.name for file in root.glob(f"{split}*.parquet")))
    if not names:
        raise CembenchError(f"no files {split}*.parquet")
    return names


def _hub_classes(schema: Any, column: str) -> list[str] | None:
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return list(features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return None
