"""Feed: what the steps of a training read, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cembench.data.augmentation import Augment
from cembench.data.loading import load_training
from cembench.data.order import Order
from cembench.training import ddp
from cembench.training.build import memory_format
from cembench.training.config import Experiment
from cembench.util.errors import CembenchError
from cembench.util.processes.distributed import World
from cembench.util.rng import derive


class Batch(NamedTuple):
    """Images of a step, or the share of them that one process takes, one branch after the other.

    Attributes:
        images: uint8, kN×C×H×W for k branches, on the device.
        labels: int64, kN, on the device.
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
        self._augments = config.method.labels == "all"
        look = config.data.members[0]
        self._branches = [branch.over(look) for branch in config.method.branches]
        loaded = world.on_all_ranks(lambda: load_training(config.data, config.validation.fraction))
        self.training, self.first = loaded.training, loaded.parts[0]
        _require_bytes(self._branches, self.training.levels)
        self.fingerprint = world.on_rank_zero(lambda: loaded.fingerprint)
        self.held = loaded.held.to(device)
        known = self.training if self._augments else self.training.unlabelled()
        self.data, self._labels = known.to(device), known.labels
        goes_on = config.epoch_images is not None or len(loaded.parts) > 1
        self._orders = []
        if goes_on:
            seeds = [config.seed, *(derive(config.seed, "branch", k) for k in self._further)]
            self._orders = [Order(seed, loaded.sizes, loaded.shares) for seed in seeds]
        self._set_steps(config, loaded.sizes)
        self.layout = memory_format(config, self.training.shape[1], self.batch, device)

    def _set_steps(self, config: Experiment, sizes: tuple[int, ...]) -> None:
        """Set batch and steps. The epochs of a mix are as long as the images of its first part."""
        images = config.epoch_images or sizes[0]
        self.batch = min(config.batch_size, images)
        if self.batch < config.method.min_batch_size:
            raise CembenchError(f"{images} training images are too few for {config.title}")
        ddp.require_shares(self.batch, self.world)
        self.steps = images // self.batch if config.method.trainable else 0

    @property
    def _further(self) -> range:
        """Numbers of the branches after the first one."""
        return range(1, len(self._branches))

    def order(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Return the rows of an epoch on the CPU in their order, one line per branch, int64, k×n.

        Args:
            epoch: epochs before it.
            generator: on the CPU; an epoch of all images draws its order from it.
        """
        if self._orders:
            place = epoch * self.steps * self.batch
            found = [order.rows(place, self.steps, self.batch) for order in self._orders]
        else:
            count = len(self.training)
            found = [torch.randperm(count, generator=generator) for _ in self._branches]
        return torch.stack(found)

    def read(self, order: Tensor, first: int) -> Iterator[Batch]:
        """Return this process's share of each batch of an epoch, read ahead where that helps.

        Args:
            order: the rows of the epoch, k×n.
            first: steps of the epoch that are done.
        """
        parts = [self._share(rows) for rows in order.split(self.batch, 1)[first : self.steps]]
        return map(self._batch, parts, self.data.store.batches(parts))

    def at(self, rows: Tensor) -> Batch:
        """Return this process's share of the images of some rows, N or k×N."""
        part = self._share(rows.cpu().reshape(len(self._branches), -1))
        return self._batch(part, self.data.batch(part))

    def pixels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return images as floats in [0, 1], augmented where the method makes no views itself."""
        images = batch.images
        if self._augments:
            parts = zip(self._branches, images.chunk(len(self._branches)), strict=True)
            images = torch.cat([branch.apply(part, generator) for branch, part in parts])
        return (images.float() / self.data.levels).contiguous(memory_format=self.layout)

    def _share(self, rows: Tensor) -> Tensor:
        return rows.chunk(self.world.size, 1)[self.world.rank].flatten()

    def _batch(self, rows: Tensor, images: Tensor) -> Batch:
        labels = self._labels[rows]
        if self.device.type == "cuda":  # without waiting until they are there
            labels = labels.pin_memory().to(self.device, non_blocking=True)
        return Batch(images, labels.to(self.device))


def _require_bytes(branches: Iterable[Augment], levels: int) -> None:
    """Refuse AutoAugment of images whose white is not 255, as that of the digits, which is 16."""
    if levels != 255 and any(branch.autoaugment for branch in branches):
        raise CembenchError(
            f"method: autoaugment needs images of 256 levels, and these have {levels + 1}; "
            "set it to false"
        )
