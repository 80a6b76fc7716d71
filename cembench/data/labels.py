"""Label sources by name: what gives labels to images that come without."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BeforeValidator

from cembench.util.registry import Registry
from cembench.util.settings import Choice

if TYPE_CHECKING:
    from cembench.data.split import Split

# Classes of images without labels, all of which are of the first.
UNLABELLED = ("unlabelled", "none")


class LabelSource(Choice):
    """Something that gives labels to images."""

    @property
    def title(self) -> str:
        """What people read of it."""
        return self.name

    @property
    def path(self) -> Path | None:
        """The file or folder that it reads, if there is one."""
        return None

    def resolved(self) -> Self:
        """Return the same source with everything that identifies its labels.

        Raises:
            CembenchError: when it cannot be read.
        """
        return self

    @abstractmethod
    def label(self, split: Split) -> Split:
        """Return the same images with labels and class names; those that they have are ignored.

        Raises:
            CembenchError: when it cannot be read, or does not fit the images.
        """


label_sources: Registry[LabelSource] = Registry(
    "label source",
    LabelSource,
    {"checkpoint": "cembench.models.pseudo_labels:CheckpointLabels"},
)


def label_field() -> BeforeValidator:
    """Return the annotation of a field that holds a label source, or the path of a checkpoint."""

    def parse(value: Any) -> Any:
        if isinstance(value, str):
            value = {"checkpoint": value}
        if isinstance(value, dict):
            value = {"name": "checkpoint", **value}
        return None if value is None else label_sources.parse(value)

    return BeforeValidator(parse)
