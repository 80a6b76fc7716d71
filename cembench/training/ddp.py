"""One training step in several processes: each takes its share of the batch, all take one step.

The batch, the learning rate and the random numbers of each image are those of one process, so that
the loss is too, but for rounding. DistributedDataParallel sees a step as one forward pass: attacks
climb the network inside it, where no gradient of a weight is made, and so none is exchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cembench.methods import Method
from cembench.samplers import Scene
from cembench.samplers.initial import ReplayBuffer
from cembench.training.config import Experiment
from cembench.util.distributed import World
from cembench.util.errors import CembenchError
from cembench.util.rng import SharedGenerator, generator_of


class Objective(nn.Module):
    """A method's loss as a module."""

    def __init__(self, net: nn.Module, method: Method) -> None:
        super().__init__()
        self.net, self.method = net, method

    def forward(self, x: Tensor, y: Tensor, scene: Scene) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts for images x, N×C×H×W, with labels y, N."""
        return self.method.loss(self.net, x, y, scene)


def wrap_ddp(objective: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Return the objective whose gradients are means over all processes; alone it stays as it is.

    Buffers are the first process's, should batch norms keep statistics of their own.
    """
    if world.size == 1:
        return objective
    where = [device] if device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=where)


def require_shares(config: Experiment, batch: int, world: World) -> None:
    """Refuse a batch that processes cannot share alike, and a method whose batch is one whole.

    Raises:
        CembenchError: naming the sizes.
    """
    if world.size == 1:
        return
    if not config.method.supports_ddp:
        raise CembenchError(
            f"method {config.method.name} tells the images of a batch from each other; train it in "
            f"one process, not in {world.size}"
        )
    if batch % world.size:
        raise CembenchError(
            f"batch_size: {batch} images cannot be shared alike by {world.size} processes; take a "
            f"multiple of {world.size}, or other processes"
        )


def batch_generator(seed: int, device: torch.device, world: World) -> torch.Generator:
    """Return the source of randomness of a batch, in the same state in all processes."""
    if world.size == 1:
        return generator_of(seed, device)
    return SharedGenerator.of(seed, device, world.rank, world.size)


def shared_buffer(buffer: ReplayBuffer | None, world: World) -> ReplayBuffer | None:
    """Return this process's places of a replay buffer: every `size`-th of each class.

    Raises:
        CembenchError: when there are fewer than processes.
    """
    if buffer is None or world.size == 1:
        return buffer
    if buffer.places < world.size:
        raise CembenchError(
            f"negatives.buffer: {buffer.places} places a class for {world.size} processes; raise it"
        )
    by_class = buffer.images.unflatten(0, (buffer.classes, buffer.places))
    mine = by_class[:, world.rank :: world.size]
    return ReplayBuffer.of(mine.flatten(0, 1).contiguous(), buffer.classes)


def whole_buffer(buffer: ReplayBuffer | None, world: World) -> Tensor | None:
    """Return the images of all processes' places, on the CPU, in the order of one process."""
    if buffer is None:
        return None
    own = buffer.images.cpu().unflatten(0, (buffer.classes, buffer.places))
    parts = world.gather(own)
    whole = own.new_empty(buffer.classes, sum(part.shape[1] for part in parts), *own.shape[2:])
    for rank, part in enumerate(parts):
        whole[:, rank :: world.size] = part
    return whole.flatten(0, 1)
