"""State of an attack on a batch: which images are done, and the adversarial images found."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from cembench.attacks.verdict import Verdict, verify
from cembench.energy.norms import Ball
from cembench.util.devices import patience
from cembench.util.errors import CembenchError

DONE = 2
RECHECK_EVERY = 10  # steps after which images whose success rounding undoes are verified again


class AttackState:
    """The state of an attack on N images, for attacks that drop images once they succeed.

    An image is done once an adversarial image is misclassified both as it is and rounded to 8
    bits. With a success that rounding undoes, the image stays in the attack, so dropping images
    early costs no success in 8 bits.

    Attributes:
        x: the images, N×C×H×W.
        y: their labels, N.
        ball: where adversarial images must lie.
        best: the best adversarial image found; the image itself where there is none.
        success: per image 0 for none, 1 for one as it is, 2 for one rounded to 8 bits too.
        enough: the success with which an image is done.
        patience: the most steps between two looks at what an attack found.
        shard: the indices of the images that are attacked here.
        stop: set to make the attacks on all shards give up.
    """

    enough: ClassVar[int] = DONE

    def __init__(self, verifier: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> None:
        self.verifier, self.x, self.y, self.ball = verifier, x, y, ball
        self.best = x.clone()
        self.success = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.patience = patience(x.device)
        self.shard = torch.arange(len(x), device=x.device)
        self.stop = threading.Event()

    def shards(self, count: int) -> list[AttackState]:
        """Return states of the same images for several attackers, each with a shard of its own."""
        shards = [copy.copy(self) for _ in range(count)]
        for number, state in enumerate(shards):
            state.shard = self.shard[number::count]
        return shards

    @property
    def active(self) -> Tensor:
        """The indices of the images of this shard that are not done."""
        return self.shard[self.success[self.shard] < self.enough]

    @property
    def verdict(self) -> Verdict:
        """The verdicts on the best adversarial images, as `verify` gave them."""
        success, rounded = self.success > 0, self.success >= DONE
        size = self.ball.size((self.best - self.x).double()).float()
        return Verdict(success, rounded, size, self.best, torch.zeros_like(success))

    def require_running(self) -> None:
        """Give up once the attack on another shard failed.

        Raises:
            CembenchError: when it did.
        """
        if self.stop.is_set():
            raise CembenchError("stopped, because the attack on another shard failed")

    def record_success(
        self, rows: Tensor, images: Tensor, misclassified: Tensor, recheck: bool = True
    ) -> Tensor:
        """Verify images that the attacked network misclassifies, and keep the best.

        Args:
            rows: the indices of the images that they were made from, M; may repeat.
            images: M×C×H×W.
            misclassified: by the attacked network, M booleans.
            recheck: whether to verify also where there is a success that rounding undoes.

        Returns:
            Which of the M rows are done, by these images or by earlier ones.

        Raises:
            CembenchError: when the attack on another shard failed.
        """
        self.require_running()
        unmet = self.success[rows] < (self.enough if recheck else 1)
        found = (misclassified & unmet).nonzero().squeeze(1)
        if len(found):
            self._verify(rows[found], images[found])
        return self.success[rows] >= self.enough

    def _verify(self, rows: Tensor, images: Tensor) -> None:
        """Keep for each image the greatest success on it, of several the last."""
        verdict = verify(self.verifier, self.x[rows], images, self.y[rows], self.ball)
        found = verdict.success.long() + verdict.success_8bit.long()
        rank = found * len(rows) + torch.arange(len(rows), device=rows.device)
        rank = rank.masked_fill(found < self.success[rows].clamp_min(1), -1)
        last = torch.full_like(self.success, -1).scatter_reduce(0, rows, rank, "amax")
        better = (last >= 0).nonzero().squeeze(1)
        self.best[better] = images[last[better] % len(rows)]
        self.success[better] = last[better] // len(rows)


def target_batches(
    state: AttackState, targets: int, max_batch: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair the active images with target classes, with several targets per batch if images are few.

    A batch has at most `max_batch` pairs, but at least one target of every image active by then.

    Args:
        state: the images.
        targets: the number of classes, the likeliest first.
        max_batch: pairs per batch.
        first: how many of these classes are left out.

    Yields:
        Indices of images and ranks of targets, M each.
    """
    while first < targets and len(rows := state.active):
        several = max(1, min(targets - first, max_batch // len(rows)))
        ranks = torch.arange(first, first + several, device=rows.device)
        yield rows.repeat(several), ranks.repeat_interleave(len(rows))
        first += several


def ranked_targets(logits: Tensor, y: Tensor) -> Tensor:
    """Return for N×K logits the other classes, the likeliest first, N×(K − 1)."""
    order = logits.argsort(1, descending=True)
    return order[order != y[:, None]].reshape(len(y), logits.shape[1] - 1)
