"""The training loop: one for all methods."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from cembench.checkpoint import Passport
from cembench.config import Experiment
from cembench.data.augment import augment
from cembench.data.split import Split, hold_out
from cembench.errors import CembenchError
from cembench.guard import derive, frozen, generator_of, seed_everything
from cembench.models.classifier import build_classifier
from cembench.optimisation import build_average, build_optimizer, build_scheduler
from cembench.progress import Bar
from cembench.runs import RunFolder, State
from cembench.samplers import PGD, Scene


def train(
    config: Experiment, folder: Path, *, resume: bool = False, device: str | torch.device = "cpu"
) -> Path:
    """Train one experiment in its run folder and return the path of the kept checkpoint.

    An interrupted run resumed with the same settings ends with the same weights as one that was
    never stopped: bit for bit on the CPU of one machine with one number of threads.

    Args:
        config: the experiment.
        folder: where its files go.
        resume: go on with a run that is there, or return at once when it is finished.
        device: where to compute.

    Raises:
        CembenchError: for a folder in use, other settings than before, a non-finite loss (the
            state of the last good epoch stays in the folder), or a full disk.
    """
    run = RunFolder(folder)
    if run.exists():
        if not resume:
            raise CembenchError(f"{folder}: a run is there already; --resume it or choose a --name")
        run.check_config(config)
        if (passport := run.finished()) is not None:
            run.check_data(passport.fingerprint, config.data.load("train").fingerprint)
            return run.model
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        _train(config, run, torch.device(device))
    return run.model


def _train(config: Experiment, run: RunFolder, device: torch.device) -> None:
    trainer = Trainer(config, device)
    run.begin(config)
    state = run.load()
    if state is not None:
        run.check_data(state.data, trainer.fingerprint)
        trainer.restore(state)
        run.publish(state, trainer.passport(state))
    with Bar(run.path.name, config.epochs * trainer.steps * trainer.batch) as bar:
        bar.advance(trainer.epoch * trainer.steps * trainer.batch)
        while trainer.epoch < config.epochs:
            try:
                state = trainer.run_epoch(bar)
            except Diverged as error:
                raise CembenchError(f"{run.path}: {error}") from error
            run.save(state, trainer.passport(state))


class Diverged(CembenchError):
    """Loss or weights are no longer finite."""


class Trainer:
    """An experiment in progress.

    Attributes:
        epoch: epochs done.
        steps: steps an epoch; a rest smaller than a batch waits for another epoch's order.
    """

    def __init__(self, config: Experiment, device: torch.device) -> None:
        self.config = config
        self.device = device
        whole = config.data.load("train")
        self.fingerprint = whole.fingerprint
        training, held = hold_out(whole, config.validation.fraction)
        self.data, self.held = training.to(device), held.to(device)
        self.batch = min(config.batch_size, len(training))
        self.steps = len(training) // self.batch
        self.statistics = pixel_statistics(training)
        seed_everything(derive(config.seed, "weights"))
        model = build_classifier(
            config.model, training.shape, len(training.classes), *self.statistics
        )
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(config.optimizer, self.model)
        self.scheduler = build_scheduler(config.schedule, self.optimizer, config.epochs, self.steps)
        self.average = build_average(self.model, config.ema)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.kept: dict[str, Tensor] = {}
        self.kept_epoch = 0

    def run_epoch(self, bar: Bar) -> State:
        """Train one epoch, validate, and return the state to save.

        Each epoch draws from generators seeded by its number, so resuming needs no RNG state.

        Raises:
            Diverged: when loss or weights stop being finite.
        """
        started = time.monotonic()
        seed_everything(derive(self.config.seed, "epoch", self.epoch))
        generator = generator_of(derive(self.config.seed, "draws", self.epoch), self.device)
        order = torch.randperm(len(self.data), generator=generator, device=self.device)
        rate = self.optimizer.param_groups[0]["lr"]
        sums: dict[str, float] = {}
        for step in range(self.steps):
            rows = order[step * self.batch : (step + 1) * self.batch]
            for key, value in self.step(step, rows, generator).items():
                sums[key] = sums.get(key, 0.0) + float(value)
            bar.advance(self.batch, f"epoch {self.epoch + 1} {self._summary(sums, step + 1)}")
        self._require_finite_weights()
        self.epoch += 1
        row: dict[str, float] = {"epoch": self.epoch, "lr": rate}
        row |= {key: total / self.steps for key, total in sums.items()}
        row |= self._validate()
        row["seconds"] = time.monotonic() - started
        self.history.append(row)
        bar.report(f"epoch {self.epoch}/{self.config.epochs} {self._summary(sums, self.steps)}")
        if self._best_epoch() == self.epoch:
            self.kept_epoch = self.epoch
            self.kept = {
                key: value.cpu().clone() for key, value in self._judged.state_dict().items()
            }
        return self.state()

    def step(self, step: int, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one optimiser step on these rows and return the loss and its parts, detached.

        Raises:
            Diverged: when the loss is not finite; the weights are not touched then.
        """
        config, data = self.config, self.data
        self.model.train()
        images = augment(data.images[rows], config.data.crop, config.data.flip, generator)
        x = (images.float() / data.levels).contiguous(memory_format=torch.channels_last)
        threat = config.method.threat_at(config.threat, self.epoch + step / self.steps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            scene = Scene(threat, generator)
            loss, parts = config.method.loss(self.model, x, data.labels[rows], scene)
        if not loss.isfinite():
            raise self._diverged(
                f"the loss is {float(loss.detach())} at epoch {self.epoch + 1}, step {step + 1}"
            )
        self.optimizer.zero_grad()
        loss.backward()
        if config.optimizer.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip)
        self.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return {"loss": loss.detach(), **parts}

    @property
    def _judged(self) -> nn.Module:
        """The network that is validated and kept: the average of weights where there is one."""
        return self.model if self.average is None else self.average.module

    def _validate(self) -> dict[str, float]:
        settings = self.config.validation
        if self.epoch % settings.every and self.epoch < self.config.epochs:
            return {}
        attack = PGD(steps=settings.steps)
        seed = derive(self.config.seed, "validation")
        scene = Scene(self.config.threat, generator_of(seed, self.device))
        clean, attacked, held = 0, 0, self.held
        limit = min(settings.images, len(held))
        for start in range(0, len(held), self.batch):
            x, y = held.pixels(slice(start, start + self.batch)), held.labels[start:][: self.batch]
            clean += correct(self._judged, x, y)
            x, y = x[: max(0, limit - start)], y[: max(0, limit - start)]
            if len(y):
                attacked += correct(self._judged, attack.search(self._judged, x, y, scene), y)
        return {"val_clean_acc": clean / len(held), "val_pgd_acc": attacked / limit}

    def _best_epoch(self) -> int:
        """The epoch to keep: ties go to clean accuracy, then to the later epoch."""
        key = {"robust": "val_pgd_acc", "clean": "val_clean_acc", "last": "epoch"}[
            self.config.select
        ]
        judged = [row for row in self.history if "val_clean_acc" in row]
        best = max(
            judged, key=lambda row: (row[key], row["val_clean_acc"], row["epoch"]), default=None
        )
        return 0 if best is None else int(best["epoch"])

    def _summary(self, sums: dict[str, float], steps: int) -> str:
        parts = [f"loss {sums['loss'] / steps:.3f}"]
        for key, label in (("val_clean_acc", "clean"), ("val_pgd_acc", "pgd")):
            known = [row[key] for row in self.history if key in row]
            parts += [f"{label} {known[-1]:.1%}"] if known else []
        return " ".join(parts)

    def _require_finite_weights(self) -> None:
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise self._diverged(f"{name} is not finite after epoch {self.epoch + 1}")

    def _diverged(self, what: str) -> Diverged:
        kept = (
            f"the state after epoch {self.epoch} is kept" if self.epoch else "nothing was kept yet"
        )
        return Diverged(f"{what}; {kept}; lower optimizer.lr or set optimizer.clip in a new run")

    def state(self) -> State:
        """Return what a run needs to go on from here."""
        return State(
            epoch=self.epoch,
            data=self.fingerprint,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scheduler=self.scheduler.state_dict(),
            average=None if self.average is None else self.average.state_dict(),
            history=self.history,
            kept=self.kept,
            kept_epoch=self.kept_epoch,
        )

    def restore(self, state: State) -> None:
        """Go back to a saved state."""
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.scheduler.load_state_dict(state.scheduler)
        if self.average is not None and state.average is not None:
            self.average.load_state_dict(state.average)
        self.epoch, self.history = state.epoch, state.history
        self.kept, self.kept_epoch = state.kept, state.kept_epoch

    def passport(self, state: State) -> Passport:
        """Describe the kept weights."""
        config, (mean, std) = self.config, self.statistics
        return Passport(
            model=config.model,
            shape=list(self.data.shape),
            classes=list(self.data.classes),
            mean=mean.tolist(),
            std=std.tolist(),
            data=config.data,
            threat=config.threat,
            method=config.method.name,
            seed=config.seed,
            epoch=state.kept_epoch,
            finished=state.epoch == config.epochs,
            fingerprint=self.fingerprint,
            gradients=config.method.gradients * self.steps * self.batch * state.epoch,
            config=config.dump(),
        )


def correct(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return how many images a network classifies as labelled, in evaluation mode."""
    with frozen(model), torch.no_grad():
        return int((model(x).argmax(1) == y).sum())


def pixel_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, on [0, 1], from exact integer sums."""
    values = split.images.transpose(0, 1).flatten(1)
    counts = [torch.bincount(channel, minlength=split.levels + 1).double() for channel in values]
    shares = torch.stack(counts) / values.shape[1]
    grid = torch.arange(split.levels + 1).double() / split.levels
    mean = shares @ grid
    std = (shares @ grid**2 - mean**2).clamp_min(0).sqrt().clamp_min(1e-3)
    return mean.float(), std.float()
