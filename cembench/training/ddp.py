"""Data-parallel training: each process takes its share of a batch, and all take the same step.

The batch, the learning rate and the random numbers of each image are those of a single process, and
so is the loss, up to rounding. DistributedDataParallel sees a step as one forward pass; samplers
run inside it, where gradients of weights are neither computed nor exchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cembench.methods import Method
from cembench.models.classifier import Classifier
from cembench.models.sync_batchnorm import SynchronisedBatchNorm2d
from cembench.samplers import SamplerContext
from cembench.samplers.initial import ReplayBuffer
from cembench.util.errors import CembenchError
from cembench.util.processes.distributed import World
from cembench.util.rng import SharedGenerator, generator_of


class MethodLoss(nn.Module):
    """Loss of a method as a module."""

    def __init__(self, net: nn.Module, method: Method) -> None:
        super().__init__()
        self.net, self.method = net, method

    def forward(
        self, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and what else is logged, for images and labels of all branches."""
        return self.method.objective(self.net, x, y, context)


def wrap_ddp(objective: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Return the objective with gradients averaged over all processes; unchanged in a single one.

    Buffers, such as unsynchronised batch-norm statistics, are those of the first process. Gradients
    lie where they are exchanged.
    """
    if world.size == 1:
        return objective
    return DistributedDataParallel(
        objective,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=not same_buffers(objective),
        gradient_as_bucket_view=True,
    )


def same_buffers(model: nn.Module) -> bool:
    """Return whether buffers are the same in all processes although nobody exchanges them.

    Those of synchronised batch norms and the scale of the pixels are.
    """
    same = (SynchronisedBatchNorm2d, Classifier)
    others = (module for module in model.modules() if not isinstance(module, same))
    return not any(True for module in others for _ in module.buffers(recurse=False))


def require_shares(batch: int, world: World) -> None:
    """Refuse a batch that does not divide by the processes.

    Raises:
        CembenchError: naming the sizes.
    """
    if world.size == 1:
        return
    if batch % world.size:
        raise CembenchError(
            f"batch_size: {batch} images do not divide by {world.size} processes; "
            f"take a multiple of {world.size}, or another number of processes"
        )


def batch_generator(seed: int, device: torch.device, world: World) -> torch.Generator:
    """Return the generator of a batch, in the same state in all processes."""
    if world.size == 1:
        return generator_of(seed, device)
    return SharedGenerator.of(seed, device, world.rank, world.size)


def shared_buffer(buffer: ReplayBuffer | None, world: World) -> ReplayBuffer | None:
    """Return this process's part of a replay buffer: every `size`-th image of each class.

    Raises:
        CembenchError: when a class has fewer images than there are processes.
    """
    if buffer is None or world.size == 1:
        return buffer
    if buffer.per_class < world.size:
        raise CembenchError(
            f"negatives.buffer: {buffer.per_class} images per class for {world.size} processes; "
            "raise it"
        )
    by_class = buffer.images.unflatten(0, (buffer.classes, buffer.per_class))
    mine = by_class[:, world.rank :: world.size]
    return ReplayBuffer.of(mine.flatten(0, 1).contiguous(), buffer.classes, buffer.device)


def whole_buffer(buffer: ReplayBuffer | None, world: World) -> Tensor | None:
    """Return the images of all processes, N×C×H×W on the CPU, in the order of a single one.

    Those of a single process on a CPU are not copied.
    """
    if buffer is None:
        return None
    if world.size == 1:
        return buffer.images.cpu()
    own = buffer.images.cpu().unflatten(0, (buffer.classes, buffer.per_class))
    parts = world.gather(own)
    whole = own.new_empty(buffer.classes, sum(part.shape[1] for part in parts), *own.shape[2:])
    for rank, part in enumerate(parts):
        whole[:, rank :: world.size] = part
    return whole.flatten(0, 1)
