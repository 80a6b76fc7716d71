"""Training that diverges, or is interrupted, when it is told to."""

from cembench.training.divergence import diverged
from cembench.training.trainer import Trainer


def diverging(monkeypatch, when):
    """Make the loss of chosen calls of `Trainer.step` beyond the bound."""
    original, calls = Trainer.step, []

    def step(self, number, rows, generator):
        calls.append(None)
        if len(calls) in when:
            what = f"the loss is 1e9 at epoch {self.epoch + 1}, step {number + 1}"
            raise diverged(what, self.epoch)
        return original(self, number, rows, generator)

    monkeypatch.setattr(Trainer, "step", step)


def stopping_in_step(number):
    """Return a `Trainer.step` that is interrupted when it is called for the nth time."""
    original, calls = Trainer.step, []

    def step(self, *rest):
        calls.append(None)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(self, *rest)

    return step
