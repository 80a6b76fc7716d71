"""Labels of images from Python, as integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cembench.util.errors import CembenchError


def labels_of(values: Any, count: int) -> Tensor:
    """Return labels as int64, N, on the CPU.

    Args:
        values: an array or a list of N integers.
        count: the number of images, N.

    Raises:
        CembenchError: for labels that are no integers, or not one for each image.
    """
    found = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if found.ndim == 2 and found.shape[1] > 1:
        raise CembenchError(f"labels of shape {found.shape}; give integers, N, by argmax(1)")
    if found.shape != (count,):
        raise CembenchError(f"{count} images and labels of shape {found.shape}; give integers, N")
    if found.dtype.kind not in "biu":
        raise CembenchError(
            f"labels of {found.dtype}; give integers from 0, in the order of logits"
        )
    return torch.from_numpy(found.astype(np.int64))
