"""Pixels of images from Python, of any common type and layout, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cembench.util.errors import CembenchError

NEAR = 1e-4  # how far interpolation may leave [0, 1]
CHANNELS = (1, 3)  # of images whose last axis may be channels


class Pixels:
    """Conversion of batches of images, which all have one shape.

    Attributes:
        levels: the integer that stands for 1.0.
        rounding: the largest change of a float pixel so far, of 1.0.
    """

    def __init__(self, levels: int) -> None:
        self.levels, self.rounding = levels, 0.0
        self.count, self.shape, self.mode = 0, torch.Size(), ""

    def bytes_of(self, images: Any) -> Tensor:
        """Return a batch of images as uint8, N×C×H×W, on the CPU.

        Args:
            images: N×C×H×W, N×H×W×C or N×H×W, integers in 0..levels or floats in [0, 1]; or a list
                of such images, or of PIL's.

        Raises:
            CembenchError: for other pixels, and for images of different shapes.
        """
        if isinstance(images, list):
            batch = torch.stack([self._one(image) for image in images])
        else:
            batch = _channels_first(_tensor(images), 4)
        self._require_shape(batch.shape[1:])
        found = self._rounded(batch)
        self.count += len(batch)
        return found

    def _one(self, image: Any) -> Tensor:
        """Return an image of a list, C×H×W."""
        if isinstance(image, Image.Image):
            if image.mode.startswith(("I", "F")):
                raise CembenchError("images of more than 8 bits a channel; convert them")
            self.mode = self.mode or ("L" if image.mode in ("1", "L") else "RGB")
            image = np.array(image.convert(self.mode))
        found = _channels_first(_tensor(image), 3)
        self._require_shape(found.shape)
        return found

    def _require_shape(self, shape: torch.Size) -> None:
        self.shape = self.shape or shape
        if shape != self.shape:
            other, first = ("×".join(map(str, each)) for each in (shape, self.shape))
            raise CembenchError(
                f"an image after the first {self.count} is {other}, the first one {first}; "
                "resize them to one shape"
            )

    def _rounded(self, images: Tensor) -> Tensor:
        if images.dtype == torch.bool or images.is_complex():
            kind = str(images.dtype).removeprefix("torch.")
            raise CembenchError(f"images of {kind}; give integers in 0..255, or floats in [0, 1]")
        low, high = images.aminmax()
        if images.is_floating_point():
            _require_unit(float(low), float(high))
            exact = images.double().clamp(0, 1) * self.levels
            whole = exact.round()
            change = float((exact - whole).abs().max()) / self.levels
            self.rounding = max(self.rounding, change if change > 1e-6 else 0.0)
            return whole.to(torch.uint8)
        if int(low) < 0 or int(high) > self.levels:
            raise CembenchError(
                f"integer pixels must be in 0..{self.levels}, and these are in "
                f"{int(low)}..{int(high)}"
            )
        return images.to(torch.uint8)


def _require_unit(low: float, high: float) -> None:
    """Refuse floats that are no pixels in [0, 1]."""
    if low >= -NEAR and high <= 1 + NEAR:
        return
    if not np.isfinite([low, high]).all():
        raise CembenchError("pixels that are NaN or infinite; replace them")
    if low >= 0:
        remedy = "divide by 255" if high <= 255 else "divide by the largest value"
    else:
        remedy = "leave out the normalisation, and put it into the network"
    raise CembenchError(
        f"pixels must be in [0, 1], and these are in [{low:.4g}, {high:.4g}]; {remedy}"
    )


def _tensor(values: Any) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        try:
            values = np.asarray(values)
        except ValueError as error:
            raise CembenchError("images of different shapes; resize them to one") from error
    if isinstance(values, Tensor):
        return values.detach().cpu()
    if values.dtype.kind not in "biufc":
        raise CembenchError(f"images of {values.dtype}; give integers in 0..255, or floats")
    wide = values.dtype.kind in "iu" and values.dtype.itemsize > 1
    return torch.from_numpy(np.array(values, np.int64 if wide else None))


def _channels_first(images: Tensor, axes: int) -> Tensor:
    """Return images with their channels before height and width."""
    if images.ndim == axes - 1:
        return images.unsqueeze(-3)
    if images.ndim != axes or 0 in images.shape:
        raise CembenchError(f"images of shape {_said(images.shape)}; give N×C×H×W")
    last = images.shape[-1] in CHANNELS and images.shape[-3] not in CHANNELS
    return images.movedim(-1, -3) if last else images


def _said(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
