"""Watch: how often an attack looks at whether it succeeds."""

from __future__ import annotations

import torch
from torch import Tensor

from cembench.attacks.state import AttackState


class Watch:
    """The iterates of an attack on M images since the last look at whether it succeeds on any.

    Each look waits until a GPU has done all that it was asked for. So looks become rarer, up to the
    patience of the state, while the attack succeeds on nothing. A look goes through all iterates
    since the last one in turn, and finds what a look after each of them would have found.
    """

    def __init__(self, state: AttackState) -> None:
        self.state, self.wait = state, 1
        self.seen: list[tuple[Tensor, Tensor, bool]] = []

    def note(self, images: Tensor, misclassified: Tensor, recheck: bool = True) -> bool:
        """Note the iterates of a step, and return whether it is time for a look.

        Args:
            images: the iterates, M×C×H×W.
            misclassified: by the attacked network, M booleans.
            recheck: as in `AttackState.record_success`.

        Raises:
            CembenchError: when the attack on another shard failed.
        """
        self.state.require_running()
        self.seen.append((images, misclassified, recheck))
        return len(self.seen) >= self.wait

    def look(self, rows: Tensor, found: bool | None = None) -> Tensor | None:
        """Record the successes among the iterates noted since the last look.

        Args:
            rows: the indices of the images, M, the same as at the last look.
            found: whether any iterate is misclassified, where the caller knows.

        Returns:
            Which images are done, M booleans; None where no more of them are than before.
        """
        seen, self.seen = self.seen, []
        if not (self._any(rows, seen) if found is None else found):
            self.wait = min(2 * self.wait, self.state.patience)
            return None
        self.wait, done = 1, None
        for images, misclassified, recheck in seen:
            done = self.state.record_success(rows, images, misclassified, recheck)
        return done

    def _any(self, rows: Tensor, seen: list[tuple[Tensor, Tensor, bool]]) -> bool:
        """Return whether any iterate would be verified."""
        if not seen:
            return False
        unmet = self.state.success[rows] == 0
        return bool(
            torch.stack([wrong if again else wrong & unmet for _, wrong, again in seen]).any()
        )
