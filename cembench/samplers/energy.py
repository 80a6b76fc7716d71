"""Base of the energy samplers: noisy gradient ascent of an energy from various initial images.

Source: CEM (arXiv 2203.13455); chains from a replay buffer are JEM's (arXiv 1912.03263).
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from cembench import energy
from cembench.data import DataSettings, datasets
from cembench.energy.norms import NORMS, Ball, Linf, by_norm
from cembench.energy.potentials import Potential
from cembench.energy.threat import NormName, Radius
from cembench.samplers import FITTED, Ascent, Needs, SamplerContext
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, NonNegative, Positive

with lazy_imports():
    from torch import Tensor, nn

    from cembench.energy.ascent import Constraint, Visit, ascend
    from cembench.models.copies.surrogate import ascent_model
    from cembench.samplers.smooth import smooth_noise
    from cembench.util.rng import integers, uniform

Start = Literal["gaussian", "pooled", "cluster", "noise", "smooth", "data", "buffer", "outside"]
Objective = tuple["nn.Module", Potential, "Tensor"]


class EnergySampler(Ascent):
    """Noisy gradient ascent of an energy, anywhere in [0, 1] or in a ball.

    Attributes:
        step_size: α in pixels. By default the RMS change of a pixel per step is 1/160,
            α = √(C·H·W)/160, and 1/20 from `noise`, `smooth` or `outside`, which are further from
            the data; both were the best on validation images of the digits. Set it for `raw`
            directions.
        direction: `l2` scales each gradient to length 1, `raw` leaves it, `sign` takes signs.
        noise: σ of the noise in each step. Default: √(2α), Langevin's, for raw directions, and 0
            for the others.
        start: initial images: Gaussians fitted on training images (`gaussian`: one per class;
            without labels `pooled`: one in all, or `cluster`: one per k-means cluster), uniform
            `noise`, `smooth` noise (data with their pixels permuted, or uniform noise, through a
            Gaussian filter: arXiv 1812.05720), the `data` themselves, the replay `buffer`, or
            images of another data set (`outside`).
        clusters: number of clusters.
        outside: that other data set.
        eps: radius of a ball around the initial image, in pixels; none unless given.
        norm: norm of that ball.
        box: whether samples are clipped to [0, 1].
        buffer: number of images in the replay buffer. One of more than 256 MB in float32 is kept as
            bytes, with 256 levels, cut to [0, 1].
        renewed: reinit share: the share of images drawn from the buffer that are reinitialised.
        renewal: what the buffer is initialised and reinitialised with: `noise`; `gaussian`, the
            informative initialisation of JEM's successors; or `mixed`, Gaussians at first, and then
            each of the two for half of the images.
    """

    steps: Count = 10
    step_size: Positive | None = None
    direction: Literal["l2", "raw", "sign"] = "l2"
    noise: NonNegative | None = None
    start: Start = "gaussian"
    clusters: Annotated[int, Field(ge=1, le=10_000)] = 10
    outside: Annotated[SerializeAsAny[DataSettings], datasets.field()] | None = None
    eps: Radius | None = None
    norm: NormName = "l2"
    box: bool = True
    buffer: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    renewed: Annotated[float, Field(ge=0, le=1)] = 0.05
    renewal: Literal["noise", "gaussian", "mixed"] = "noise"

    potential: ClassVar[Potential]
    rms_change: ClassVar[float] = 1 / 160

    @model_validator(mode="after")
    def _has_other_data(self) -> Self:
        if self.start == "outside" and self.outside is None:
            raise ValueError("start: outside needs a data set in outside")
        return self

    @model_validator(mode="after")
    def _sizes_in_pixels(self) -> Self:
        if self.eps is not None:
            NORMS[self.norm](self.eps).require_below_diameter()
        if self.step_size is not None and self.direction == "sign":
            Linf(self.step_size).require_below_diameter("step_size")
        return self

    @property
    def init(self) -> str:
        """Kind of the initial images, `start`."""
        return self.start

    def needs(self) -> Needs:
        """Return Gaussians, a replay buffer or another data set, as `start` says."""
        kind = self.renewal if self.start == "buffer" else self.start
        kind = "gaussian" if kind == "mixed" else kind
        return Needs(
            gaussians=kind if kind in FITTED else None,
            clusters=self.clusters,
            buffer_size=self.buffer if self.start == "buffer" else 0,
            other_data=self.outside if self.start == "outside" else None,
        )

    def draw(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        context: SamplerContext,
        target: Tensor | None = None,
    ) -> Tensor:
        """Return one sample per label; images x are used only with `start: data` and `smooth`."""
        images, rows = self.initial_images(x, y, context)
        samples = self.ascend(model, images, y if target is None else target, context)
        if rows is not None and context.initial.buffer is not None:
            context.initial.buffer.update(rows, samples)
        return samples

    def initial_images(
        self, x: Tensor, y: Tensor, context: SamplerContext
    ) -> tuple[Tensor, Tensor | None]:
        """Return initial images for labels y, and their rows in the replay buffer, if from there.

        Raises:
            CembenchError: when the context has no images of that kind.
        """
        initial, generator = context.initial, context.generator
        if self.start == "data":
            return x, None
        if self.start == "noise":
            return uniform(x.shape, generator), None
        if self.start == "smooth":
            return smooth_noise(x, generator), None
        if self.start == "buffer" and initial.buffer is not None:
            gaussians = None if self.renewal == "noise" else initial.gaussians
            noise = 0.5 if self.renewal == "mixed" else 0.0
            return initial.buffer.draw(y, self.renewed, generator, gaussians, noise)
        if self.start == "outside" and initial.other_data is not None:
            rows = integers(len(initial.other_data), y.shape, generator)
            return initial.other_data.pixels(rows), None
        if self.start in FITTED and initial.gaussians is not None:
            if self.start != "gaussian":
                y = initial.gaussians.random_labels(len(y), generator)
            return initial.gaussians.draw(y, generator), None
        raise CembenchError(f"{self.name} starts from '{self.start}', which is not available here")

    def alpha(self, images: Tensor) -> float:
        """Return the step size for images of this shape."""
        far = self.start in ("noise", "smooth", "outside")
        change = 1 / 20 if far else self.rms_change
        return self.step_size or change * math.sqrt(images[0].numel())

    def objective(self, model: nn.Module, y: Tensor, context: SamplerContext) -> Objective:
        """Return forward function, potential, and the target of the potential for labels y."""
        return model, type(self).potential, y

    def readings(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return quantities to show of outputs (N×K) and labels y (N): N values by name."""
        return {
            "log p(x) + const": energy.marginal(out),
            "log p(y|x)": energy.conditional(out, y),
        }

    def ascend(
        self,
        model: nn.Module,
        images: Tensor,
        y: Tensor,
        context: SamplerContext,
        visit: Visit | None = None,
        within: tuple[Constraint, Tensor] | None = None,
    ) -> Tensor:
        """Return the last iterates of chains from images (N×C×H×W) toward labels y (N).

        `within` is a constraint and its centre (N×C×H×W), in place of the sampler's own ball.
        """
        ball, centre = within or (self._ball(), images)
        alpha = self.alpha(images)
        noise = self.noise
        if noise is None:
            noise = math.sqrt(2 * alpha) if self.direction == "raw" else 0.0
        with ascent_model(model, images, self.mode, context.surrogate) as net:
            forward, potential, target = self.objective(net, y, context)
            return ascend(
                forward,
                potential,
                images,
                target,
                steps=self.steps,
                step_size=alpha,
                direction=self.direction,
                ball=ball,
                centre=centre,
                noise=noise,
                generator=context.generator,
                visit=visit,
            )

    def _ball(self) -> Ball | None:
        if self.eps is not None:
            return by_norm(NORMS, self.norm, self.name)(self.eps)
        return Linf(math.inf) if self.box else None
