"""Epoch in progress: its order, its random numbers, and what its steps have logged so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from cembench.training import ddp
from cembench.util.distributed import World
from cembench.util.rng import derive, generator_of, restore_rng, rng_state, seed_everything


class Midway(TypedDict):
    """Part of an epoch that is done, as plain values and tensors.

    Attributes:
        steps: steps taken.
        lr: learning rate of the first one.
        sums: sums over the steps of what they log.
        seconds: that they took.
        random: states of the generators of each process.
    """

    steps: int
    lr: float
    sums: dict[str, float]
    seconds: float
    random: list[dict[str, Any]]


class Epoch:
    """Epoch from its beginning, or from where it was interrupted.

    Its generators are seeded when it begins, so resuming after an epoch needs no state of them.

    Args:
        path: what its seed is derived from.
        order: returns the rows that it reads, which it may draw from a generator on the CPU.
        device: where steps are computed.
        world: the processes that share each batch.
        lr: the learning rate now.
        midway: what was done before.

    Attributes:
        generator: of the draws of a batch, the same in all processes.
        order: the rows that it reads, on the CPU.
        steps: steps taken.
        lr: learning rate of the first one.
        sums: sums over the steps of what they log.
    """

    def __init__(
        self,
        path: tuple[Any, ...],
        order: Callable[[torch.Generator], Tensor],
        device: torch.device,
        world: World,
        lr: float,
        midway: Midway | None,
    ) -> None:
        self.world = world
        self._started = time.monotonic()
        seed_everything(derive(*path))
        seed = derive(*path, "draws")
        self.generator = ddp.batch_generator(seed, device, world)
        if not world.first:
            seed_everything(derive(*path, "rank", world.rank))
        # on a CPU the draws go on where the order ended; on a GPU the order is that of a CPU
        on_cpu = device.type == "cpu"
        self.order = order(self.generator if on_cpu else generator_of(seed, "cpu"))
        self.steps, self.lr = 0, lr
        self.sums: dict[str, float] = {}
        if midway is not None:
            self._resume(midway)

    def _resume(self, midway: Midway) -> None:
        self.steps, self.lr, self.sums = midway["steps"], midway["lr"], dict(midway["sums"])
        self._started -= midway["seconds"]
        states = midway["random"]
        if len(states) == self.world.size:
            restore_rng(states[self.world.rank], self.generator)
        else:  # another number of processes, which share the state of this generator alone
            self.generator.set_state(states[0]["generator"])

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count a step and what it logs."""
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value)
        self.steps += 1

    @property
    def seconds(self) -> float:
        """Seconds that it took so far."""
        return time.monotonic() - self._started

    def midway(self) -> Midway:
        """Return what is done; every process has to call it."""
        random = self.world.gather(rng_state(self.generator))
        return {
            "steps": self.steps,
            "lr": self.lr,
            "sums": self.sums,
            "seconds": self.seconds,
            "random": random,
        }
