"""Cost of a training: the gradient evaluations ahead, and the time that they will take."""

from __future__ import annotations

import time
from typing import Self

from cembench.samplers import InitialImages, SamplerContext
from cembench.training.config import Experiment
from cembench.training.trainer import Trainer
from cembench.util.display.format import roughly
from cembench.util.progress import Bar, Screen
from cembench.util.rng import generator_of

STEPS = 20  # whose time tells how long the others will take
LONG = 600  # seconds; nobody needs to be told of less


def gradients_per_image(experiment: Experiment) -> int:
    """Return the gradient evaluations of an image in a step, as many as in the first epoch."""
    context = SamplerContext(experiment.threat, generator_of(0, "cpu"), InitialImages())
    return experiment.method.cost(context)


class CostBar(Bar):
    """The progress bar of a training, which says what is ahead, and after some steps how long.

    A training that diverges and goes back takes longer than that.

    Args:
        title: the name of the run.
        trainer: knows what is done and what is ahead.
    """

    def __init__(self, title: str, trainer: Trainer) -> None:
        self._trainer = trainer
        self._left = trainer.config.epochs * trainer.steps * trainer.batch
        self._calls, self._since = 0, 0.0
        super().__init__(title, self._left)

    def __enter__(self) -> Self:
        super().__enter__()
        trainer, config = self._trainer, self._trainer.config
        epochs = config.epochs - trainer.epoch
        gradients = epochs * trainer.steps * trainer.batch * gradients_per_image(config)
        if gradients:
            tell = self.warn if Screen.current() is None else self.report
            product = f"epochs × steps × images = {epochs} × {trainer.steps} × {trainer.batch}"
            tell(f"{product}, about {gradients:.2g} gradient evaluations")
        return self

    def advance(self, images: int, note: str | None = None) -> None:
        """Count images: those of earlier processes first, then those of each step."""
        super().advance(images, note)
        self._left -= images
        self._calls += 1
        if self._calls == 2:  # the first step has warmed up
            self._since = time.monotonic()
        elif self._calls == 2 + STEPS:
            seconds = (time.monotonic() - self._since) / (STEPS * images) * self._left
            if seconds >= LONG:
                self.warn(f"{roughly(seconds)} left at the rate of the first {STEPS} steps")
