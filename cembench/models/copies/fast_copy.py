"""Fast copy of a network: folded batch norms, fused convolutions, bfloat16, compilation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cembench.models.copies.folding import folded
from cembench.models.copies.fused_conv import FusedConv
from cembench.models.copies.fusion import fused
from cembench.models.copies.layout import channels_first
from cembench.util.errors import CembenchError, ModelError
from cembench.util.frozen import copied

ROWS = 64  # batch size of a compiled network, since each shape costs a compilation


def fast_copy(
    model: nn.Module, example: Tensor, halved: bool, compiled: bool, fusing: bool = True
) -> nn.Module:
    """Return a copy of a frozen network with batch norms folded, in the layout channels last.

    On a CPU, unless it is compiled, its convolutions are fused with what follows them. A network
    that cannot be copied is returned as it is.

    Args:
        example: images that the copy is tried on, N×C×H×W.
        halved: whether it computes in bfloat16, but for its first and its last layer.
        compiled: whether it is compiled.
        fusing: whether convolutions may be fused with what follows them.

    Raises:
        CembenchError: when it cannot be compiled.
    """
    found = folded(model, example)
    network = copied(model) if found is model else found
    if network is None:
        return model
    fusion = fused(network, example) if fusing and not compiled else None
    if halved:
        _halve(network, example[:2])
        fusion = None if fusion is None else _halved_fusion(fusion, example[:2])
    prepared = FastModel(network, halved, compiled, fusion)
    prepared.to(memory_format=torch.channels_last)
    if not halved and not compiled and example.device.type == "cpu":
        channels_first(network, example[:2])
    try:
        if compiled:
            prepared(example[:2])
    except Exception as error:
        origin = error.__cause__ if isinstance(error, ModelError) and error.__cause__ else error
        reason = (str(origin).splitlines() or [repr(origin)])[0]
        raise CembenchError(f"engine fast cannot compile this network here: {reason}") from error
    return prepared.eval().requires_grad_(False)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies in bfloat16 rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


class FastModel(nn.Module):
    """Network under autocast; if compiled, all its batches have one size.

    Attributes:
        copied: the copy.
        fusion: the same with fused convolutions and the same weights, if there is one.
    """

    def __init__(
        self, copied: nn.Module, halved: bool, compiled: bool, fusion: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.copied, self.halved, self.compiled, self.fusion = copied, halved, compiled, fusion
        if compiled:
            cuda = next(copied.parameters()).is_cuda
            copied.compile(dynamic=False, mode="reduce-overhead" if cuda else "default")

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs in float32."""
        # In float32, gradients through fused convolutions take as long, and more calls.
        fusion = self.fusion if self.halved or not torch.is_grad_enabled() else None
        if fusion is None:
            x = x.contiguous(memory_format=torch.channels_last)
        # Weights are cast already, and a cache would keep what a chunk leaves behind.
        cast = torch.autocast(x.device.type, torch.bfloat16, self.halved, cache_enabled=False)
        with cast:
            if not self.compiled:
                return (self.copied if fusion is None else fusion)(x).float()
            # CUDA graphs reuse the memory of their outputs, hence the copies.
            parts = [self.copied(_padded(part)).float().clone() for part in x.split(ROWS)]
        return torch.cat(parts)[: len(x)]

    @property
    def encoder(self) -> nn.Module:
        """Map from images to embeddings of length 1."""
        encoder = self.copied.encoder
        assert isinstance(encoder, nn.Module)
        return FastModel(encoder, self.halved, False)


def _halve(copied: nn.Module, example: Tensor) -> None:
    """Cast the weights of all used layers but the first and the last."""
    used: list[nn.Module] = []
    layers = [layer for layer in copied.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [it.register_forward_pre_hook(lambda layer, _: used.append(layer)) for it in layers]
    # Some layers may be cast already: a network shares its layers with its fusion.
    cast = any(layer.weight.dtype == torch.bfloat16 for layer in layers)
    kind = example.device.type
    with torch.no_grad(), torch.autocast(kind, torch.bfloat16, cast, cache_enabled=False):
        copied(example)
    for hook in hooks:
        hook.remove()
    for layer in used[1:-1]:
        layer.to(torch.bfloat16)
    for layer in (*used[:1], *used[-1:]):
        layer.float()
        if isinstance(layer, FusedConv):
            layer.split = layer is not used[-1]
        else:
            layer.forward = _exactly(layer.forward)


def _halved_fusion(fusion: nn.Module, example: Tensor) -> nn.Module | None:
    """Cast a fusion too; None where oneDNN cannot multiply in bfloat16 on this CPU."""
    try:
        _halve(fusion, example)
        with torch.enable_grad():
            x = example.detach().clone().requires_grad_()
            torch.autograd.grad(FastModel(fusion, True, False)(x).sum(), x)
        with torch.no_grad():
            FastModel(fusion, True, False)(example)
    except RuntimeError:
        return None
    return fusion


def _exactly(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    return run


def _padded(x: Tensor) -> Tensor:
    return pad(x, (0, 0) * (x.dim() - 1) + (0, ROWS - len(x))) if len(x) < ROWS else x
