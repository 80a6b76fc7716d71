"""Order of training images: which rows each step reads, as a function of seed and position."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cembench.util.rng import derive, generator_of


@dataclass(frozen=True)
class Order:
    """Endless order of the images of one or several parts, pass after pass.

    Each part has an order of its own: its image p is number p mod n of a permutation of its n
    images, which the seed and the number of the pass, p // n, decide. So the rows of a step depend
    on the seed and on the position in the run alone. Every stretch of the run has the shares of the
    parts, up to an image for each of them.

    Attributes:
        seed: that of the run.
        sizes: images of each part, which have the rows after those of the parts before.
        shares: of each part in every batch; they add up to 1.
    """

    seed: int
    sizes: tuple[int, ...]
    shares: tuple[float, ...] = (1.0,)
    _last: dict[int, tuple[int, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def rows(self, start: int, steps: int, batch: int) -> Tensor:
        """Return the rows of some steps, int64, steps·batch, batch after batch.

        Args:
            start: images of the run before them.
            steps: number of steps.
            batch: images of each.
        """
        counts = [self.counts(start + step * batch) for step in range(steps + 1)]
        parts = [
            self._stretch(part, first, last)
            for part, (first, last) in enumerate(zip(counts[0], counts[-1], strict=True))
        ]
        if len(parts) == 1:
            return parts[0]
        found = torch.empty(steps * batch, dtype=torch.int64)
        for step, target in enumerate(found.split(batch)):
            chosen = [
                part[counts[step][i] - counts[0][i] : counts[step + 1][i] - counts[0][i]]
                for i, part in enumerate(parts)
            ]
            # the parts are mixed within the batch, since processes take stretches of it
            place = derive(self.seed, "batch", start + step * batch)
            target[torch.randperm(batch, generator=generator_of(place, "cpu"))] = torch.cat(chosen)
        return found

    def counts(self, images: int) -> tuple[int, ...]:
        """Return how many of the first images of a run are of each part.

        Each part takes its share of what the parts before it leave, rounded: so no count ever
        falls, and they add up.
        """
        found, left, rest = [], images, 1.0
        for share in self.shares[:-1]:
            found.append(min(left, round(left * share / rest)))
            left, rest = left - found[-1], rest - share
        return (*found, left)

    def _stretch(self, part: int, first: int, last: int) -> Tensor:
        """Return the rows at the positions `first` to `last` − 1 in the order of a part."""
        size, offset = self.sizes[part], sum(self.sizes[:part])
        found = []
        for number in range(first // size, -(-last // size)):
            inside = slice(max(0, first - number * size), min(size, last - number * size))
            found.append(self._permutation(part, number)[inside] + offset)
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)

    def _permutation(self, part: int, number: int) -> Tensor:
        """Return the permutation of a pass; the last one is kept, since epochs may share it."""
        if part not in self._last or self._last[part][0] != number:
            generator = generator_of(derive(self.seed, "order", part, number), "cpu")
            self._last[part] = number, torch.randperm(self.sizes[part], generator=generator)
        return self._last[part][1]
