"""Sparse-RS (Croce et al., arXiv 2006.12834): random search over a few pixels, by outputs."""

from __future__ import annotations

from typing import ClassVar

from cembench.attacks import Attack, Propose, Target
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, Fraction

with lazy_imports():
    import torch
    from torch import Tensor

    from cembench.attacks.square import margins
    from cembench.attacks.state import AttackState
    from cembench.attacks.watch import Watch
    from cembench.energy.ascent import staying
    from cembench.util.rng import generator_of

# By how much fewer pixels a step replaces than the first, after queries of 10,000.
DIVISORS = {0: 2, 50: 4, 200: 5, 500: 6, 1000: 8, 2000: 10, 4000: 12, 6000: 15, 8000: 20}


class SparseRS(Attack):
    """Sparse-RS in ℓ0: sets ε pixels to random corners of the colour cube, and replaces a few.

    A replacement is kept where it lowers the margin. It sees no gradient; in ℓ0 it is the standard
    attack.

    Attributes:
        queries: forward passes per image.
        replaced: the share of the pixels that the first step replaces; it falls as in the paper.

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> x = torch.rand(6, 1, 8, 8)
        >>> y = net(x).argmax(1)
        >>> target = Target.of(net, Threat(norm="l0", eps=12), classes=4)
        >>> [(name, propose)] = SparseRS(queries=300).stages(target)
        >>> (net(propose(x, y)).argmax(1) == y).tolist()
        [False, False, False, False, False, False]
    """

    name: ClassVar[str] = "sparse-rs"
    queries: Count = 5000
    replaced: Fraction = 0.3

    @property
    def norms(self) -> frozenset[str]:
        """ℓ0."""
        return frozenset({"l0"})

    @property
    def black_box(self) -> frozenset[str]:
        """All of it."""
        return frozenset({self.title})

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the search as one stage."""
        return [(self.title, lambda x, y: self._search(target, x, y))]

    def share(self, number: int) -> float:
        """Return the share of the pixels that query `number` replaces."""
        progress = int(number / self.queries * 10_000)
        divisors = [divisor for after, divisor in DIVISORS.items() if progress > after]
        return self.replaced / (divisors[-1] if divisors else 1)

    def _search(self, target: Target, x: Tensor, y: Tensor) -> Tensor:
        ball = target.threat.ball
        state = AttackState(target.verifier, x, y, ball)
        search = _Search(target, state, int(ball.eps))
        for number in range(1, self.queries):
            if len(search.rows) == 0 or search.changed == 0:
                break
            search.step(self.share(number))
        search.watch.look(search.rows)
        return state.best


class _Search:
    """The state of a search on N images of P pixels.

    Attributes:
        changed: how many pixels change, at most P.
        rows: the images that are still attacked, M.
        places: all pixels of each image, N×P; those that change come first.
        best: the images with the lowest margin so far, N×C×P.
    """

    def __init__(self, target: Target, state: AttackState, pixels: int) -> None:
        self.model, self.state, self.watch = target.model, state, Watch(state)
        self.generator = generator_of(target.seed, state.x.device)
        self.x, self.rows = state.x.flatten(2), state.active
        count, channels, whole = self.x.shape
        self.changed = min(pixels, whole)
        self.places = self._drawn(count, whole).argsort(1)
        first = self.places[:, None, : self.changed].expand(-1, channels, -1)
        self.best = self.x.scatter(2, first, self._corners(self.changed))
        self.margin = torch.full((count,), torch.inf, device=self.x.device)
        self._accept(self.best, self.rows)

    def step(self, share: float) -> None:
        """Put a few of the pixels back, and change as many others."""
        free = self.places.shape[1] - self.changed
        count = min(max(1, int(share * self.changed)), free)
        old = self._drawn(self.changed).argsort()[:count]
        new = self.changed + self._drawn(free).argsort()[:count]
        corners = self._corners(count)
        rows = self.rows
        gone, come = (
            self.places[rows][:, None, part].expand(-1, corners.shape[1], -1) for part in (old, new)
        )
        tried = self.best[rows].scatter(2, gone, self.x[rows].gather(2, gone))
        tried = tried.scatter(2, come, corners[rows])
        helped = self._accept(tried, rows)
        swapped = self.places[helped]
        swapped[:, old], swapped[:, new] = swapped[:, new], swapped[:, old]
        self.places[helped] = swapped

    def _accept(self, tried: Tensor, rows: Tensor) -> Tensor:
        """Keep what lowers the margin, record successes, and return the images that moved."""
        images = tried.view(-1, *self.state.x.shape[1:])
        with torch.no_grad():
            found = margins(self.model, images[:, None], self.state.y[rows, None, None]).squeeze(1)
        better = found < self.margin[rows]
        helped = rows[better]
        self.best[helped], self.margin[helped] = tried[better], found[better]
        if self.watch.note(images, better & (found < 0)):
            kept = staying(self.watch.look(rows))
            self.rows = rows if kept is None else rows[kept]
        return helped

    def _corners(self, count: int) -> Tensor:
        """Return random corners of the colour cube for some pixels of all images, N×C×count."""
        return self._drawn(*self.x.shape[:2], count).round()

    def _drawn(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.x.device)
