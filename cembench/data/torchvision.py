"""Torchvision's data sets: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cembench.data import DataSettings
from cembench.energy.threat import Threat
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import numpy as np
    import torch

    from cembench.data.split import Split

CACHE = Path("~/.cache/cembench/data")


class TorchvisionData(DataSettings):
    """A data set of torchvision.

    Attributes:
        root: a folder that holds it already, laid out as torchvision does; unless given, it is
            downloaded to `~/.cache/cembench/data`.
    """

    root: str | None = None

    @property
    def image_folder(self) -> Path | None:
        """None: torchvision recognises the files of its data sets."""
        return None

    def load(self, split: Literal["train", "test"]) -> Split:
        """Read one split."""
        root = Path(self.root or CACHE).expanduser()
        try:
            source = self._open(root, split, download=self.root is None)
        except (RuntimeError, OSError, EOFError, AssertionError, ValueError) as error:
            reason = (str(error).splitlines() or ["unreadable"])[0]
            raise CembenchError(
                f"{self.name}: missing or damaged under {root} ({reason}); "
                "set data.root to the folder that torchvision calls root"
            ) from error
        images = torch.as_tensor(np.ascontiguousarray(self._pixels(source)))
        labels = torch.as_tensor(np.asarray(self._labels(source))).long()
        return Split.of(images, labels, self._classes(source))

    def _open(self, root: Path, split: str, download: bool) -> Any:
        import torchvision

        kind = getattr(torchvision.datasets, self.torchvision_name)
        return kind(root, train=split == "train", download=download)

    def _pixels(self, source: Any) -> np.ndarray:
        pixels = np.asarray(source.data)
        return pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)

    def _labels(self, source: Any) -> Any:
        return source.targets

    def _classes(self, source: Any) -> tuple[str, ...]:
        return tuple(source.classes)

    torchvision_name: ClassVar[str]


class MNIST(TorchvisionData):
    """MNIST, 28×28 grey."""

    name: ClassVar[str] = "mnist"
    torchvision_name: ClassVar[str] = "MNIST"

    @property
    def threat(self) -> Threat:
        """The 0.3 of Madry et al. (arXiv 1706.06083)."""
        return Threat(norm="linf", eps=0.3)


class FashionMNIST(TorchvisionData):
    """Fashion-MNIST, 28×28 grey; `root/FashionMNIST/raw` holds the unpacked idx files."""

    name: ClassVar[str] = "fashion-mnist"
    torchvision_name: ClassVar[str] = "FashionMNIST"

    @property
    def threat(self) -> Threat:
        """0.1, the usual choice for clothes, whose classes are closer than digits."""
        return Threat(norm="linf", eps=0.1)


class CIFAR10(TorchvisionData):
    """CIFAR-10, 32×32 colour."""

    name: ClassVar[str] = "cifar10"
    torchvision_name: ClassVar[str] = "CIFAR10"
    crop: Annotated[int, Field(ge=0, le=1024)] = 4
    flip: bool = True


class CIFAR100(CIFAR10):
    """CIFAR-100, 32×32 colour."""

    name: ClassVar[str] = "cifar100"
    torchvision_name: ClassVar[str] = "CIFAR100"


class SVHN(TorchvisionData):
    """SVHN, 32×32 colour, cropped digits."""

    name: ClassVar[str] = "svhn"
    crop: Annotated[int, Field(ge=0, le=1024)] = 4

    def _open(self, root: Path, split: str, download: bool) -> Any:
        import torchvision

        return torchvision.datasets.SVHN(root, split=split, download=download)

    def _pixels(self, source: Any) -> np.ndarray:
        return np.asarray(source.data)

    def _labels(self, source: Any) -> Any:
        return source.labels

    def _classes(self, source: Any) -> tuple[str, ...]:
        return tuple("0123456789")
