"""Images at the size that a network wants."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate


def square(images: Tensor, size: int) -> Tensor:
    """Return uint8 images, N×C×H×W, as float32 from 0 to 255, bicubically resized to squares.

    Bicubic values may leave that range.
    """
    x = images.float()
    if x.shape[-2:] == (size, size):
        return x
    small = max(x.shape[-2:]) > size
    return interpolate(x, (size, size), mode="bicubic", antialias=small)
