"""Validation on images held out of the training split; test images are never used."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cembench.data.split import Split
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.training.config import Experiment
from cembench.training.ddp import batch_generator
from cembench.util.frozen import frozen
from cembench.util.processes.distributed import ALONE, World
from cembench.util.rng import SharedGenerator, derive
from cembench.util.stopping import asked, interruptible

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
        ranks: processes that share each batch; every one of them has to call it.

    Returns:
        The metrics, those of one process; None where a signal asked to stop. One of several
        processes only notes it while others wait for what it has of a batch.
    """
    whole = _Validation(model, held, config, batch, ranks)
    try:
        with interruptible() if ranks.size == 1 else nullcontext():
            own = ranks.on_rank_zero(
                lambda: config.method.validation_metrics(model, held, config.seed)
            )
            return whole.metrics() if own is None else own
    except KeyboardInterrupt:
        if asked():
            return None
        raise


@dataclass(frozen=True)
class _Validation:
    """Validation of a network, batch by batch, of each of which every process has its share."""

    model: nn.Module
    held: Split
    config: Experiment
    batch: int
    ranks: World

    def metrics(self) -> dict[str, float] | None:
        """Return both accuracies; None where a process is asked to stop."""
        limit = min(self.config.validation.images, len(self.held))
        judged = min(max(CLEAN, limit), len(self.held))
        right = sum(correct(self.model, *self._read(rows)) for rows in self._parts(judged))
        left = self._attacked(limit)
        if left is None:
            return None
        counts = torch.tensor(self.ranks.gather([right, left])).sum(0).tolist()
        return {"val_clean_acc": counts[0] / judged, "val_pgd_acc": counts[1] / limit}

    def _parts(self, count: int) -> list[slice]:
        """Return this process's rows of each batch of so many images."""
        batches = torch.arange(count).split(self.batch)
        own = [rows.tensor_split(self.ranks.size)[self.ranks.rank] for rows in batches]
        return [slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0) for rows in own]

    def _read(self, rows: slice) -> tuple[Tensor, Tensor]:
        return self.held.pixels(rows), self.held.labels[rows]

    def _attacked(self, limit: int) -> int | None:
        """Return how many of so many images survive here; None where a process is to stop.

        PGD draws a start for each image that is right, so processes tell each other how many are.
        """
        seed = derive(self.config.seed, "validation")
        generator = batch_generator(seed, self.held.device, self.ranks)
        contexts = [SamplerContext(threat, generator) for threat in self.config.threats]
        attack, left = PGD(steps=self.config.validation.steps), 0
        for x, y in map(self._read, self._parts(limit)):
            x, y = _kept(x, y, classified(self.model, x, y))
            for context in contexts:
                if not self._agreed(generator, len(y)):
                    return None
                if len(y):
                    found = attack.search(self.model, x, y, context)
                    x, y = _kept(x, y, classified(self.model, found, y))
                else:
                    context.threat.ball.uniform(x, generator)  # as the others do
            left += len(y)
        return left

    def _agreed(self, generator: torch.Generator, count: int) -> bool:
        """Tell the others how many starts are drawn here; return whether all go on."""
        if not isinstance(generator, SharedGenerator):
            return True
        counts, stops = zip(*self.ranks.gather((count, asked())), strict=True)
        rank = self.ranks.rank
        generator.around = sum(counts[:rank]), sum(counts[rank + 1 :])
        return not any(stops)


def _kept(x: Tensor, y: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    return x[which], y[which]


def classified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return for each image whether it is classified correctly, in evaluation mode."""
    if len(y) == 0:
        return torch.ones_like(y, dtype=torch.bool)
    with frozen(model), torch.no_grad():
        return model(x).argmax(1) == y


def correct(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return the number of correctly classified images, in evaluation mode."""
    return int(classified(model, x, y).sum())
