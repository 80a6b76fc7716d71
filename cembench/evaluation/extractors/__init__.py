"""Feature extractors by name. Figures of different extractors or sizes never share a column."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cembench.util.registry import Registry
from cembench.util.settings import Choice

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Embed = Callable[["Tensor"], "Tensor | tuple[Tensor, Tensor]"]


class Extractor(Choice):
    """A network trained on ImageNet, whose features tell how alike two sets of images are.

    Attributes:
        unit: whether features are scaled to length 1 for precision and recall.
    """

    unit: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """The name in columns, with whatever changes figures."""
        return self.name

    def cautions(self, checksum: str) -> list[str]:
        """Return what to be careful about with these weights, by their SHA-256."""
        return []

    @abstractmethod
    def weights(self, given: Path | None) -> Path:
        """Return the file of weights: the given one, or one that is there or can be downloaded.

        Raises:
            CembenchError: when there is none, saying which file to get.
        """

    @abstractmethod
    def build(self, weights: Path, device: torch.device) -> Embed:
        """Return a function from uint8 images, N×3×H×W, to features N×D.

        With class logits, N×K, beside them there is an Inception Score too.

        Raises:
            CembenchError: when the file does not hold the weights.
        """


extractors: Registry[Extractor] = Registry(
    "extractor",
    Extractor,
    {
        "lite0": "cembench.evaluation.extractors.lite:Lite0",
        "lite2": "cembench.evaluation.extractors.lite:Lite2",
        "inception": "cembench.evaluation.extractors.inception:Inception",
        "dinov2": "cembench.evaluation.extractors.dinov2:DinoV2",
    },
)
