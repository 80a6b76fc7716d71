"""Feed: what the steps of a training read, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from cembench.data.augment import augment
from cembench.data.loading import load_training
from cembench.data.order import Order
from cembench.data.store.memory import MemoryStore
from cembench.training import ddp
from cembench.training.build import memory_format
from cembench.training.config import Experiment
from cembench.util.distributed import World
from cembench.util.errors import CembenchError

T = TypeVar("T")


class Batch(NamedTuple):
    """Images of a step, or the share of them that one process takes.

    Attributes:
        images: uint8, N×C×H×W, on the device.
        labels: int64, N, on the device.
    """

    images: Tensor
    labels: Tensor


class Feed:
    """Training images of an experiment, as its steps read them.

    Attributes:
        training: training images with labels, on the CPU.
        data: the same on the device, without labels unless the method may know them.
        held: images held out for validation, with labels, on the device.
        fingerprint: of the whole training split.
        batch: images per step, of all processes together.
        steps: steps per epoch; a rest smaller than a batch is left out of the epoch.
    """

    def __init__(self, config: Experiment, device: torch.device, world: World) -> None:
        self.world, self.device = world, device
        self._look, self._augments = config.data, config.method.labels == "all"
        loaded = world.on_all_ranks(lambda: load_training(config.data, config.validation.fraction))
        self.training = loaded.training
        self.fingerprint = world.on_rank_zero(lambda: loaded.fingerprint)
        self.held = loaded.held.to(device)
        known = self.training if self._augments else self.training.unlabelled()
        self.data, self._labels = known.to(device), known.labels
        self._set_steps(config)
        self.layout = memory_format(config, self.training, self.batch, device)

    def _set_steps(self, config: Experiment) -> None:
        images, count = len(self.training), config.epoch_images
        self._order = None if count is None else Order(config.seed, (images,))
        images = count or images
        self.batch = min(config.batch_size, images)
        if self.batch < config.method.min_batch_size:
            raise CembenchError(f"{images} training images are too few for {config.title}")
        ddp.require_shares(config, self.batch, self.world)
        self.steps = images // self.batch if config.method.trainable else 0

    def order(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Return the rows of an epoch on the CPU, int64, in their order.

        Args:
            epoch: epochs before it.
            generator: on the CPU; an epoch of all images draws its order from it.
        """
        if self._order is None:
            return torch.randperm(len(self.training), generator=generator)
        return self._order.rows(epoch * self.steps * self.batch, self.steps, self.batch)

    def read(self, order: Tensor, first: int) -> Iterator[Batch]:
        """Return this process's share of each batch of an epoch, read ahead where that helps.

        Args:
            order: the rows of the epoch.
            first: steps of the epoch that are done.
        """
        parts = [self._share(rows) for rows in order.split(self.batch)[first : self.steps]]
        if isinstance(self.data.store, MemoryStore):
            return (self._batch(part, self.data.batch(part)) for part in parts)
        read = self.training.store.batches(parts)
        return (
            _ahead(map(self._batch, parts, read))
            if self.device.type == "cuda"
            else map(self._batch, parts, read)
        )

    def at(self, rows: Tensor) -> Batch:
        """Return this process's share of the images of some rows."""
        part = self._share(rows.cpu())
        return self._batch(part, self.data.batch(part))

    def pixels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return images as floats in [0, 1], augmented where the method makes no views itself."""
        images = batch.images
        if self._augments:
            images = augment(images, self._look.crop, self._look.flip, generator)
        return (images.float() / self.data.levels).contiguous(memory_format=self.layout)

    def _share(self, rows: Tensor) -> Tensor:
        return rows.chunk(self.world.size)[self.world.rank]

    def _batch(self, rows: Tensor, images: Tensor) -> Batch:
        return Batch(self._upload(images), self._upload(self._labels[rows]))

    def _upload(self, values: Tensor) -> Tensor:
        """Return values on the device, without waiting until they are there."""
        if values.device.type == self.device.type:
            return values
        return values.pin_memory().to(self.device, non_blocking=True)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Return items while a thread already makes the next one."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = thread.submit(next, items, None)
            yield item
