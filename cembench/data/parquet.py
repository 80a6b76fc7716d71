"""Parquet files of images, as on the Hugging Face hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cembench.data.image_files import LocalData
from cembench.data.source import Source
from cembench.util.errors import CembenchError
from cembench.util.files.parquet import read_arrow


@dataclass(frozen=True)
class ParquetSource(Source):
    """Images in a column of parquet files.

    Attributes:
        column: of all files.
    """

    column: Any

    def name(self, row: int) -> str:
        """Return the row."""
        return f"row {row}"

    def read(self, row: int) -> bytes:
        """Return the content of the image; nothing where it has none."""
        content = self.column[row].as_py()
        content = content.get("bytes") if isinstance(content, dict) else content
        return content if isinstance(content, bytes) else b""


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
        labels, images, schema = self._table(root, split)
        classes = self.classes or _hub_classes(schema, self.label)
        if classes is None:
            training = labels if split == "train" else self._table(root, "train")[0]
            classes = [str(label) for label in range(max(training) + 1)]
        return ParquetSource(labels, tuple(classes), images)

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


def _hub_classes(schema: Any, column: str) -> list[str] | None:
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return list(features[column]["names"])
    except (KeyError, TypeError, ValueError):
        return None
