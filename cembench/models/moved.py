"""Network at other weights than its own, through which gradients reach its own."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call


class Moved(nn.Module):
    """A network that computes with other tensors in place of some of its weights and buffers.

    Modules and parameters that one finds in it are those of the network itself.

    Args:
        net: the network.
        tensors: what stands for its parameters and buffers, by their names.
    """

    def __init__(self, net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.net, self.tensors = net, dict(tensors)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for images, N×C×H×W."""
        return functional_call(self.net, self.tensors, (x,))
