"""Samplers of the energy model: SGLD climbs log p(x), TA log p(ŷ|x), CS log p(x, ŷ), RCS both.

Source: CEM (arXiv 2203.13455); SGLD with a replay buffer is JEM's (arXiv 1912.03263).
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor, nn

from cembench import energy
from cembench.data import DataSettings, datasets
from cembench.energy import potentials
from cembench.energy.ascent import Visit, ascend
from cembench.energy.norms import NORMS, Ball, Linf, by_norm
from cembench.energy.potentials import Potential
from cembench.energy.threat import NormName
from cembench.models.folding import climbed
from cembench.samplers import Sampler, Scene
from cembench.samplers.initial import FITTED
from cembench.util.errors import CembenchError
from cembench.util.rng import integers, uniform
from cembench.util.settings import Count, NonNegative, Positive

Start = Literal["gaussian", "pooled", "cluster", "noise", "data", "buffer", "outside"]
Landscape = tuple[nn.Module, Potential, Tensor]


class EnergySampler(Sampler):
    """Climbs an energy from a start, with noise, anywhere in [0, 1] or in a ball.

    Attributes:
        step_size: α in pixels. By default a step changes a pixel by 1/160 (RMS), α = √(C·H·W)/160,
            and by 1/20 from noise or from outside, where the way is long; both were the best on
            validation images of the digits. `raw` directions want one of their own.
        direction: `l2` scales each gradient to length 1, `raw` leaves it, `sign` takes signs.
        noise: σ of the noise in each step; √(2α), Langevin's, for raw directions unless given, and
            none for the others.
        start: Gaussians fitted on training images (`gaussian`: one a class; without labels
            `pooled`: one in all, or `cluster`: one for each of their k-means clusters), uniform
            `noise`, the `data` themselves, the replay `buffer`, or images from `outside`.
        clusters: how many clusters.
        outside: the other data set that `outside` starts come from.
        eps: radius of a ball around the start; none unless given.
        norm: the norm of that ball.
        box: whether samples are kept in [0, 1].
        buffer: places of the replay buffer.
        renewed: share of the buffer's starts that are drawn anew.
        renewal: what those are, and what the buffer begins with: `noise`, or `gaussian` seeds, the
            informative start of JEM's successors.
    """

    steps: Count = 10
    step_size: Positive | None = None
    direction: Literal["l2", "raw", "sign"] = "l2"
    noise: NonNegative | None = None
    start: Start = "gaussian"
    clusters: Annotated[int, Field(ge=1, le=10_000)] = 10
    outside: Annotated[SerializeAsAny[DataSettings], datasets.field()] | None = None
    eps: NonNegative | None = None
    norm: NormName = "l2"
    box: bool = True
    buffer: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    renewed: Annotated[float, Field(ge=0, le=1)] = 0.05
    renewal: Literal["noise", "gaussian"] = "noise"

    potential: ClassVar[Potential]
    change: ClassVar[float] = 1 / 160

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.start == "outside" and self.outside is None:
            raise ValueError("start: outside needs a data set in outside")
        return self

    @property
    def begins(self) -> str:
        """The kind of start."""
        return self.start

    @property
    def places(self) -> int:
        """The size of the buffer, if chains start from it."""
        return self.buffer if self.start == "buffer" else 0

    def draw(
        self, model: nn.Module, x: Tensor, y: Tensor, scene: Scene, target: Tensor | None = None
    ) -> Tensor:
        """Return one sample for each label; images x are used by the `data` start alone."""
        start, places = self.begin(x, y, scene)
        sample = self.climb(model, start, y if target is None else target, scene)
        if places is not None and scene.buffer is not None:
            scene.buffer.put_back(places, sample)
        return sample

    def begin(self, x: Tensor, y: Tensor, scene: Scene) -> tuple[Tensor, Tensor | None]:
        """Return starts for labels y, and their places if they come from the buffer.

        Raises:
            CembenchError: when the scene lacks the seeds or the buffer that are asked for.
        """
        if self.start == "data":
            return x, None
        if self.start == "noise":
            return uniform(x.shape, scene.generator), None
        if self.start in FITTED and scene.seeds is not None:
            parts = y if self.start == "gaussian" else scene.seeds.parts(len(y), scene.generator)
            return scene.seeds.draw(parts, scene.generator), None
        if self.start == "buffer" and scene.buffer is not None:
            seeds = scene.seeds if self.renewal == "gaussian" else None
            return scene.buffer.draw(y, self.renewed, scene.generator, seeds)
        if self.start == "outside" and scene.outside is not None:
            rows = integers(len(scene.outside), y.shape, scene.generator)
            return scene.outside.pixels(rows), None
        raise CembenchError(f"{self.name} starts from '{self.start}', and there is none here")

    def alpha(self, start: Tensor) -> float:
        """Return the step size for images of this shape."""
        change = 1 / 20 if self.start in ("noise", "outside") else self.change
        return self.step_size or change * math.sqrt(start[0].numel())

    def landscape(self, model: nn.Module, y: Tensor, scene: Scene) -> Landscape:
        """Return what is climbed: images to outputs, the potential, and what it is told."""
        return model, type(self).potential, y

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return what outputs (N×K) say of the images, N values by name, for labels y (N)."""
        return {
            "log p(x) + const": energy.marginal(out),
            "log p(y|x)": energy.conditional(out, y),
        }

    def climb(
        self, model: nn.Module, start: Tensor, y: Tensor, scene: Scene, visit: Visit | None = None
    ) -> Tensor:
        """Return where the chains from `start` (N×C×H×W) toward labels y (N) end."""
        alpha = self.alpha(start)
        noise = self.noise
        if noise is None:
            noise = math.sqrt(2 * alpha) if self.direction == "raw" else 0.0
        with climbed(model, start, self.mode) as net:
            forward, potential, target = self.landscape(net, y, scene)
            return ascend(
                forward,
                potential,
                start,
                target,
                steps=self.steps,
                step_size=alpha,
                direction=self.direction,
                ball=self._ball(),
                centre=start,
                noise=noise,
                generator=scene.generator,
                visit=visit,
            )

    def _ball(self) -> Ball | None:
        if self.eps is not None:
            return by_norm(NORMS, self.norm, self.name)(self.eps)
        return Linf(math.inf) if self.box else None


class SGLD(EnergySampler):
    """JEM's sampler: raw gradients of LSE, decoupled noise, a replay buffer, no projection.

    JEM's step 1 and noise 0.01 on [−1, 1] are 0.25 and 0.005 on [0, 1].
    """

    name: ClassVar[str] = "sgld"
    potential: ClassVar[Potential] = staticmethod(potentials.marginal)
    steps: Count = 20
    step_size: Positive | None = 0.25
    direction: Literal["l2", "raw", "sign"] = "raw"
    noise: NonNegative | None = 0.005
    start: Start = "buffer"
    box: bool = False

    @property
    def paired(self) -> bool:
        """Only when chains start from the data: the climb does not know the label."""
        return self.start == "data"


class TA(EnergySampler):
    """Targeted attack: climbs log p(ŷ|x) alone, and may lower p(x) on the way."""

    name: ClassVar[str] = "ta"
    potential: ClassVar[Potential] = staticmethod(potentials.conditional)


class CS(EnergySampler):
    """Conditional sampling: climbs log p(x, ŷ)."""

    name: ClassVar[str] = "cs"
    potential: ClassVar[Potential] = staticmethod(potentials.joint)


class RCS(EnergySampler):
    """Reinforced conditional sampling: climbs log p(x, ŷ) + log p(x)."""

    name: ClassVar[str] = "rcs"
    potential: ClassVar[Potential] = staticmethod(potentials.reinforced)
