"""Validation on images held out of the training split; test images are never used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from cembench.data.split import Split
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.training.config import Experiment
from cembench.util.distributed import ALONE, World
from cembench.util.frozen import frozen
from cembench.util.rng import derive, generator_of
from cembench.util.stopping import asked, interruptible

T = TypeVar("T")
CLEAN = 10_000  # held-out images that clean accuracy is of, at most


def validate(
    model: nn.Module, held: Split, config: Experiment, batch: int, ranks: World = ALONE
) -> dict[str, float] | None:
    """Return clean accuracy on held-out images, and PGD accuracy on at most `images` of them.

    PGD has to fail within every threat model that the experiment trains against. It has the same
    random starts in every epoch. Clean accuracy is of the first 10,000 images, or of `images` if
    that is more. Encoders have metrics of their own, which the first process computes.

    Args:
        model: the network, the same in all processes.
        held: the images.
        config: the experiment.
        batch: images per batch.
        ranks: processes that share the batches; every one of them has to call it.

    Returns:
        The metrics, those of one process; None where a signal asked one of them to stop.
    """
    whole = _Validation(model, held, config, batch, ranks)
    if (own := _together(ranks, whole.own_metrics)) is None:
        return None
    if own[0]:
        return own[0]
    if (clean := _together(ranks, whole.clean)) is None:
        return None
    counts = {start: found for part in clean for start, found in part.items()}
    if (left := _together(ranks, lambda: whole.attacked(counts))) is None:
        return None
    right = sum(all_right for all_right, _ in counts.values())
    return {"val_clean_acc": right / whole.judged, "val_pgd_acc": sum(left) / whole.limit}


def _together(ranks: World, work: Callable[[], T]) -> list[T] | None:
    """Return what a function returns in each process; None where a signal asked one to stop."""

    def inside() -> list[T]:
        try:
            with interruptible():
                return [work()]
        except KeyboardInterrupt:
            if asked():
                return []
            raise

    found = ranks.gather(ranks.on_all_ranks(inside))
    return [value for part in found for value in part] if all(found) else None


@dataclass(frozen=True)
class _Validation:
    """Validation of a network, batch by batch, of which each process has its share."""

    model: nn.Module
    held: Split
    config: Experiment
    batch: int
    ranks: World

    @property
    def limit(self) -> int:
        """Images that are attacked."""
        return min(self.config.validation.images, len(self.held))

    @property
    def judged(self) -> int:
        """Images that clean accuracy is of."""
        return min(max(CLEAN, self.limit), len(self.held))

    def own_metrics(self) -> dict[str, float]:
        """Return the metrics that a method has of its own, in the first process."""
        if not self.ranks.first:
            return {}
        return self.config.method.validation_metrics(self.model, self.held, self.config.seed) or {}

    def clean(self) -> dict[int, tuple[int, int]]:
        """Return how many images of each batch, and how many of the attacked ones, are right."""
        found = {}
        for start in self.ranks.shard(range(0, self.judged, self.batch)):
            rows = slice(start, min(start + self.batch, self.judged))
            right = classified(self.model, self.held.pixels(rows), self.held.labels[rows])
            found[start] = int(right.sum()), int(right[: max(0, self.limit - start)].sum())
        return found

    def attacked(self, counts: dict[int, tuple[int, int]]) -> int:
        """Return how many images survive, of this process's share.

        PGD draws a start for each image that is right, batch by batch from one generator. So each
        process draws those of the others too. With several threat models, how many are drawn
        depends on what survives the first: then the first process attacks alone.
        """
        generator = generator_of(derive(self.config.seed, "validation"), self.held.device)
        contexts = [SamplerContext(threat, generator) for threat in self.config.threats]
        starts = range(0, self.limit, self.batch)
        alone = len(contexts) > 1
        if alone and not self.ranks.first:
            return 0
        own = starts if alone else self.ranks.shard(starts)
        left = 0
        for start in starts:
            if start in own:
                left += self._standing(start, contexts)
            elif (right := counts[start][1]) > 0:
                images = torch.empty(right, *self.held.shape, device=self.held.device)
                contexts[0].threat.ball.uniform(images, generator)
        return left

    def _standing(self, start: int, contexts: list[SamplerContext]) -> int:
        attack = PGD(steps=self.config.validation.steps)
        rows = slice(start, min(start + self.batch, self.limit))
        x, y = self.held.pixels(rows), self.held.labels[rows]
        for context in contexts:
            if len(y):
                right = classified(self.model, attack.search(self.model, x, y, context), y)
                x, y = x[right], y[right]
        return len(y)


def classified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return for each image whether it is classified correctly, in evaluation mode."""
    with frozen(model), torch.no_grad():
        return model(x).argmax(1) == y


def correct(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return the number of correctly classified images, in evaluation mode."""
    return int(classified(model, x, y).sum())
