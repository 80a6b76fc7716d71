"""Images under one attack: which still stand, and what broke the others."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cembench.attacks.verdict import verify
from cembench.energy.ascent import Ball
from cembench.util.errors import CembenchError

ROUNDED = 2


class AttackState:
    """The state of an attack on N images, for attacks that drop what is broken.

    An image is done once something breaks it both as it is and rounded to bytes. One that is
    broken only as it is stays under attack, so leaving early costs no verdict on 8-bit images.

    Attributes:
        x: the images, N×C×H×W.
        y: their labels, N.
        ball: where perturbations must stay.
        best: what broke each image, the best so far; the image itself where nothing did.
        share: the numbers of those that are attacked here.
        stop: set when attackers of other shares are to give up.
        broken: 0 for an image that stands, 1 for broken as it is, 2 for rounded to bytes too.
    """

    def __init__(self, judge: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> None:
        self.judge, self.x, self.y, self.ball = judge, x, y, ball
        self.best = x.clone()
        self.broken = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.share = torch.arange(len(x), device=x.device)
        self.stop = threading.Event()

    def shared(self, parts: int) -> list[AttackState]:
        """Return the same images for several attackers, each with a share that is its own."""
        shares = [copy.copy(self) for _ in range(parts)]
        for number, share in enumerate(shares):
            share.share = self.share[number::parts]
        return shares

    @property
    def rows(self) -> Tensor:
        """The numbers of the images of this share that are not done."""
        return self.share[self.broken[self.share] < ROUNDED]

    def claim(self, rows: Tensor, images: Tensor, wrong: Tensor, again: bool = True) -> Tensor:
        """Judge images said to be misclassified, by the network as it is in float32.

        Args:
            rows: which images they were made of, M numbers; the same may come more than once.
            images: M×C×H×W.
            wrong: whether the attacked network takes them for something else, M booleans.
            again: whether to try once more what is broken, but never was when rounded.

        Returns:
            Which of the M rows are done, by these images or by others.
        """
        if self.stop.is_set():
            raise CembenchError("stopped, because another share of the images was")
        if not again:
            wrong = wrong & (self.broken[rows] == 0)
        if bool(wrong.any()):
            at, made = rows[wrong], images[wrong]
            verdict = verify(self.judge, self.x[at], made, self.y[at], self.ball)
            found = verdict.broken.long() + verdict.broken_8bit.long()
            for level in (1, ROUNDED):
                won = (found >= level) & (self.broken[at] <= level)
                self.best[at[won]] = made[won]
                self.broken[at[won]] = self.broken[at[won]].clamp_min(level)
        return self.broken[rows] >= ROUNDED


def side_by_side(state: AttackState, targets: int, room: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair the images that stand with targets, several targets at once where images are few.

    Args:
        state: the images; who is done meanwhile is paired no more.
        targets: how many targets each image has.
        room: how many pairs may go together; one target at least always does.

    Yields:
        Numbers of images and of targets, M each.
    """
    first = 0
    while first < targets and len(rows := state.rows):
        several = max(1, min(targets - first, room // len(rows)))
        ranks = torch.arange(first, first + several, device=rows.device)
        yield rows.repeat(several), ranks.repeat_interleave(len(rows))
        first += several


def ranked(logits: Tensor, y: Tensor) -> Tensor:
    """Return for N×K logits the other classes, the likeliest first, N×(K − 1)."""
    order = logits.argsort(1, descending=True)
    return order[order != y[:, None]].reshape(len(y), -1)
