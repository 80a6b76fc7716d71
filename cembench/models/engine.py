"""Engines: the surrogate that attacks and samplers use, the network itself or a fast copy.

Whatever proposes them, `attacks.verdict.verify` decides by the network as it is, in float32.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from cembench.util.registry import Registry
from cembench.util.settings import Choice

if TYPE_CHECKING:
    from torch import Tensor, nn

EXAMPLES = 8  # images that a copy is tested on


class Engine(Choice):
    """Preparation of networks for attacks and samplers."""

    @abstractmethod
    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        """Return the network whose gradients attacks and samplers follow.

        The model is frozen, in evaluation mode, on its device; the example is a few images.
        """


class Plain(Engine):
    """The network itself."""

    name: ClassVar[str] = "plain"

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        """Return the network."""
        return model


class Fast(Engine):
    """A copy with folded batch norms, channels last, and most layers in bfloat16.

    The first convolution and the last layer stay in float32: 8-bit images and small differences of
    logits need it, and these layers cost little.

    Attributes:
        precision: `auto` is bf16 on machines with instructions for it, and fp32 on others.
        compile: use `torch.compile`, which needs a C++ compiler and most of a minute per network.
    """

    name: ClassVar[str] = "fast"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        """Return the copy; of a network without gradient, the network itself."""
        from cembench.models.copies.fast_copy import fast_copy, has_bfloat16
        from cembench.models.gradient import missing_gradient

        if missing_gradient(model, example):
            return model
        auto = self.precision == "auto" and has_bfloat16(example.device)
        return fast_copy(model, example, auto or self.precision == "bf16", self.compile)


engines: Registry[Engine] = Registry(
    "engine",
    Engine,
    {
        "plain": "cembench.models.engine:Plain",
        "fast": "cembench.models.engine:Fast",
    },
)
