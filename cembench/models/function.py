"""Function from images to logits as a network, even one that no gradient goes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class FunctionModel(nn.Module):
    """Network that calls a function; it has a gradient if autograd finds one through the function.

    What the function keeps, such as a network with its mode, device and weights, is not changed.

    Args:
        function: float images in [0, 1], N×C×H×W, to N×K logits, as a tensor or a NumPy array.
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        """Return what the function returns, an array as a tensor on the device of the images."""
        out = self.function(x)
        return torch.as_tensor(out, device=x.device) if isinstance(out, np.ndarray) else out

    @property
    def title(self) -> str:
        """Name in tables: that of the function, or of its class."""
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return "function" if name == "<lambda>" else str(name)

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionModel:
        """Return a network with the same function, which may hold what cannot be copied."""
        return FunctionModel(self.function)
