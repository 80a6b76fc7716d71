"""Epoch in progress: its order, its random numbers, and what its steps have logged so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from cembench.training import ddp
from cembench.util.processes.distributed import World
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
        counted: steps in these sums; the last few steps may be missing, until they are read.
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
        self.steps, self.counted, self.lr = 0, 0, lr
        self.sums: dict[str, float] = {}
        self._unread: list[Mapping[str, Tensor]] = []
        if midway is not None:
            self._resume(midway)

    def _resume(self, midway: Midway) -> None:
        self.steps, self.lr, self.sums = midway["steps"], midway["lr"], dict(midway["sums"])
        self.counted = self.steps
        self._started -= midway["seconds"]
        states = midway["random"]
        if len(states) == self.world.size:
            restore_rng(states[self.world.rank], self.generator)
        else:  # another number of processes, which share the state of this generator alone
            self.generator.set_state(states[0]["generator"])

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count a step; what it logs stays on the device."""
        self._unread.append(values)
        self.steps += 1

    def read(self, check: Callable[[Mapping[str, float], int], None]) -> None:
        """Add what the last steps logged to the sums, all of it read from the device at once.

        Args:
            check: is called with what a step logged and the number of steps before it.
        """
        unread, self._unread = self._unread, []
        flat = [value.double() for values in unread for value in values.values()]
        numbers = iter(torch.stack(flat).tolist() if flat else [])
        for values in unread:
            found = {key: next(numbers) for key in values}
            check(found, self.counted)
            for key, value in found.items():
                self.sums[key] = self.sums.get(key, 0.0) + value
            self.counted += 1

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
