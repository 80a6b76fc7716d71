"""Feed: what the steps of a training read, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cembench.data.augment import augment
from cembench.data.loading import load_training
from cembench.data.order import Order
from cembench.training import ddp
from cembench.training.build import memory_format
from cembench.training.config import Experiment
from cembench.util.distributed import World
from cembench.util.errors import CembenchError


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
        first: those of them that are of the first part of a mix; all unless it is one.
        data: the same on the device, without labels unless the method may know them.
        held: images held out for validation, with labels, on the device.
        fingerprint: of the whole training split.
        batch: images per step, of all processes together.
        steps: steps per epoch; a rest smaller than a batch is left out of the epoch.
    """

    def __init__(self, config: Experiment, device: torch.device, world: World) -> None:
        self.world, self.device = world, device
        self._look, self._augments = config.data.members[0], config.method.labels == "all"
        loaded = world.on_all_ranks(lambda: load_training(config.data, config.validation.fraction))
        self.training, self.first = loaded.training, loaded.parts[0]
        self.fingerprint = world.on_rank_zero(lambda: loaded.fingerprint)
        self.held = loaded.held.to(device)
        known = self.training if self._augments else self.training.unlabelled()
        self.data, self._labels = known.to(device), known.labels
        goes_on = config.epoch_images is not None or len(loaded.parts) > 1
        self._order = Order(config.seed, loaded.sizes, loaded.shares) if goes_on else None
        self._set_steps(config, loaded.sizes)
        self.layout = memory_format(config, self.training, self.batch, device)

    def _set_steps(self, config: Experiment, sizes: tuple[int, ...]) -> None:
        """Set batch and steps. The epochs of a mix are as long as the images of its first part."""
        images = config.epoch_images or sizes[0]
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
        return map(self._batch, parts, self.data.store.batches(parts))

    def at(self, rows: Tensor) -> Batch:
        """Return this process's share of the images of some rows."""
        part = self._share(rows.cpu())
        return self._batch(part, self.data.batch(part))

    def pixels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return images as floats in [0, 1], augmented where the method makes no views itself."""
        images = batch.images
        if self._augments:
            look = self._look
            images = augment(images, look.crop, look.flip, generator, look.resized_crop)
        return (images.float() / self.data.levels).contiguous(memory_format=self.layout)

    def _share(self, rows: Tensor) -> Tensor:
        return rows.chunk(self.world.size)[self.world.rank]

    def _batch(self, rows: Tensor, images: Tensor) -> Batch:
        labels = self._labels[rows]
        if self.device.type == "cuda":  # without waiting until they are there
            labels = labels.pin_memory().to(self.device, non_blocking=True)
        return Batch(images, labels.to(self.device))
