"""Corrupted images that others made, as files: CIFAR-10-C and what is laid out like it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cembench.data.corruptions import SEVERITIES
from cembench.util.errors import CembenchError
from cembench.util.files import sha256

LABELS = "labels"


@dataclass(frozen=True)
class Published:
    """A folder with `fog.npy` and so on, uint8, and `labels.npy`.

    Each file has all test images, in the order of the data set, at severity 1, then at 2, up to 5.

    Attributes:
        folder: the folder.
        shape: channels, height and width of the images.
    """

    folder: Path
    shape: tuple[int, int, int]

    def batch(self, name: str, severity: int, rows: Tensor, labels: Tensor) -> Tensor:
        """Return corrupted images as bytes, N×C×H×W, on the device of their labels.

        Args:
            name: of the corruption.
            severity: from 1 to 5.
            rows: the numbers of the images in the test split, N.
            labels: theirs, N.

        Raises:
            CembenchError: when a file is missing or damaged, or of other images.
        """
        images = self._images(name)
        places = (severity - 1) * (len(images) // len(SEVERITIES)) + rows.cpu().numpy()
        if places.max() >= len(self.labels) or (self.labels[places] != labels.cpu().numpy()).any():
            raise CembenchError(
                f"{self.folder / LABELS}.npy: not the labels of these images, but of others"
            )
        found = np.ascontiguousarray(images[places].transpose(0, 3, 1, 2))
        return torch.from_numpy(found).to(labels.device)

    def require(self, names: Iterable[str], count: int) -> None:
        """Refuse files that are missing, or not of `count` images at each severity.

        Raises:
            CembenchError: naming the file.
        """
        for name in names:
            if len(self._images(name)) != len(SEVERITIES) * count:
                raise CembenchError(
                    f"{self.folder / name}.npy: {len(self._images(name))} images, not {count} at "
                    "each of five severities"
                )
        if len(self.labels) != len(SEVERITIES) * count:
            raise CembenchError(f"{self.folder / LABELS}.npy: {len(self.labels)} labels")

    def checksum(self, names: Iterable[str]) -> str:
        """Return a digest of the files of some corruptions."""
        files = [self.folder / f"{name}.npy" for name in names]
        return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()

    @cached_property
    def labels(self) -> np.ndarray:
        """The labels, five times over."""
        return self._read(LABELS)

    def _images(self, name: str) -> np.ndarray:
        images, (channels, height, width) = self._read(name), self.shape
        if images.shape[1:] != (height, width, channels) or images.dtype != np.uint8:
            raise CembenchError(
                f"{self.folder / name}.npy: {images.dtype} of shape {images.shape}; images of "
                f"{height}×{width}×{channels} bytes are wanted"
            )
        return images

    def _read(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r")
        except FileNotFoundError as error:
            raise CembenchError(
                f"{path}: missing; set corruptions.root to the folder of the files, or "
                "corruptions.names to those that are there"
            ) from error
        except (OSError, ValueError, EOFError) as error:
            raise CembenchError(f"{path}: damaged, or no array of images") from error
