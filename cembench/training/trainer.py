"""An experiment in progress: one epoch, one step, and the state to go on from."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from cembench.data.augment import augment
from cembench.data.split import hold_out
from cembench.models.metadata import CheckpointMetadata
from cembench.models.sync_batchnorm import synchronise
from cembench.samplers import Scene
from cembench.samplers.initial import ReplayBuffer
from cembench.training.build import build_buffer, build_model, build_seeds, load_outside
from cembench.training.config import Experiment
from cembench.training.ddp import (
    Objective,
    batch_generator,
    require_shares,
    shared_buffer,
    whole_buffer,
    wrap_ddp,
)
from cembench.training.optim import build_average, build_optimizer, build_scheduler
from cembench.training.run_folder import RunFolder, State
from cembench.training.selection import best_epoch, summary, validate
from cembench.util.distributed import world
from cembench.util.errors import CembenchError, TrainingDiverged
from cembench.util.files import digest
from cembench.util.progress import Bar
from cembench.util.rng import derive, seed_everything


class Diverged(CembenchError):
    """Loss or weights are no longer finite, or beyond the bound."""


class Trainer:
    """An experiment in progress.

    Attributes:
        epoch: epochs done.
        steps: steps an epoch; a rest smaller than a batch waits for another epoch's order.
        labelled: whether the method may see labels; otherwise its data have none.
        learns_features: whether all weights are trained, or those of the head alone.
        world: the processes that share each batch; one writes, and all are in the same state.
    """

    def __init__(self, config: Experiment, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.world = world()
        whole = config.data.load("train")
        self.fingerprint = whole.fingerprint
        training, held = hold_out(whole, config.validation.fraction)
        self.held = held.to(device)
        self.labelled = config.method.labels == "all"
        self.data = (training if self.labelled else training.unlabelled()).to(device)
        self.batch = min(config.batch_size, len(training))
        if self.batch < config.method.min_batch_size:
            raise CembenchError(f"{len(training)} training images are too few for {config.title}")
        require_shares(config, self.batch, self.world)
        self.steps = len(training) // self.batch if config.method.trainable else 0
        seed_everything(derive(config.seed, "weights"))
        self.learns_features = config.pretrained is None or not config.pretrained.frozen
        model, self.statistics = build_model(config, training)
        # On a CPU, ResNet-18, 32×32 pixels: channels last gains clearly in bf16, and in fp32 a
        # little in batches of 32; in smaller ones it loses. `cembench bench train` shows it.
        large = self.batch >= 32 and training.shape[1] >= 32
        fast = large or config.precision == "bf16" or device.type == "cuda"
        self.layout = torch.channels_last if fast else torch.contiguous_format
        self.model = model.to(device).to(memory_format=self.layout)
        if self.world.size > 1 and config.batch_norm == "synchronised":
            synchronise(self.model)
        if config.compile:
            self.model.compile(dynamic=False)
        self.optimizer = build_optimizer(config.optimizer, self.model)
        steps = max(1, self.steps)
        self.scheduler = build_scheduler(config.schedule, self.optimizer, config.epochs, steps)
        self.average = build_average(self.model, config.ema if config.method.trainable else 0.0)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.kept: dict[str, Tensor] = {}
        self.kept_epoch = 0
        self.kept_buffer: Tensor | None = None
        self.divergences = 0
        self.gradients = 0 if config.pretrained is None else config.pretrained.gradients
        sampler = config.method.sampler
        self.seeds = build_seeds(sampler, self.data)
        self.buffer = shared_buffer(build_buffer(config, self.data, self.seeds), self.world)
        self.outside = load_outside(sampler, self.data)
        self.objective: nn.Module = Objective(self.model, config.method)

    def wrap_ddp(self) -> None:
        """Let all processes learn together, once each of them has come so far."""
        if self.config.method.trainable:
            self.objective = wrap_ddp(self.objective, self.world, self.device)

    def run_epoch(self, bar: Bar) -> State:
        """Train one epoch, validate, and return the state to save.

        Each epoch draws from generators seeded by its number, so resuming needs no RNG state.

        Raises:
            Diverged: when loss or weights stop being finite.
        """
        started = time.monotonic()
        stream = (self.config.seed, "epoch", self.epoch, self.divergences)
        rank = ("rank", self.world.rank) if self.world.rank else ()
        seed_everything(derive(*stream, *rank))
        generator = batch_generator(derive(*stream, "draws"), self.device, self.world)
        order = torch.randperm(len(self.data), generator=generator, device=self.device)
        rate = self.optimizer.param_groups[0]["lr"]
        if self.epoch == 0:
            self.config.method.fit(self.model, self.data)
        sums: dict[str, float] = {}
        for step in range(self.steps):
            rows = order[step * self.batch : (step + 1) * self.batch]
            for key, value in self.step(step, rows, generator).items():
                sums[key] = sums.get(key, 0.0) + float(value)
            bar.advance(
                self.batch, f"epoch {self.epoch + 1} {summary(sums, step + 1, self.history)}"
            )
        self._require_finite_weights()
        self.epoch += 1
        row: dict[str, float] = {"epoch": self.epoch, "lr": rate}
        row |= {key: total / self.steps for key, total in sums.items()}
        if self.epoch % self.config.validation.every == 0 or self.epoch == self.config.epochs:
            row |= self.world.on_rank_zero(
                lambda: validate(self.judged, self.held, self.config, self.batch)
            )
        row |= {"divergences": self.divergences, "gradients": self.gradients}
        row["seconds"] = time.monotonic() - started
        self.history.append(row)
        bar.report(
            f"epoch {self.epoch}/{self.config.epochs} {summary(sums, self.steps, self.history)}"
        )
        if (
            best_epoch(self.history, self.config.select, self.config.method.first_kept)
            == self.epoch
        ):
            self.kept_epoch = self.epoch
            self.kept = {
                key: value.cpu().clone() for key, value in self.judged.state_dict().items()
            }
            self.kept_buffer = whole_buffer(self.buffer, self.world)
        return self.state()

    def step(self, step: int, rows: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one optimiser step on these rows and return the loss and its parts, detached.

        Each of several processes takes its share of the rows; what is returned is the mean.

        Raises:
            Diverged: when the loss is not finite; the weights are not touched then.
        """
        config, data = self.config, self.data
        images_in_all = len(rows)
        rows = rows.chunk(self.world.size)[self.world.rank]
        self.model.train(self.learns_features)
        images = data.images[rows]
        if self.labelled:  # methods without labels make views of their own
            images = augment(images, config.data.crop, config.data.flip, generator)
        x = (images.float() / data.levels).contiguous(memory_format=self.layout)
        threat = config.method.threat_at(config.threat, self.epoch + step / self.steps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            scene = Scene(
                threat,
                generator,
                seeds=self.seeds,
                buffer=self.buffer,
                outside=self.outside,
                history=self.history if self.labelled else (),
            )
            loss, parts = self.objective(x, data.labels[rows], scene)
        self.gradients += config.method.cost(scene) * images_in_all
        values = self.world.mean({"loss": loss.detach(), **parts})
        self._require_bounded(values, step)
        self.optimizer.zero_grad()
        loss.backward()
        if config.optimizer.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip)
        self.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return values

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the average of weights where there is one."""
        return self.model if self.average is None else self.average.module

    def _require_bounded(self, values: dict[str, Tensor], step: int) -> None:
        """Refuse a loss or an energy that is not finite or beyond the bound."""
        for name, value in values.items():
            watched = name == "loss" or name.startswith("lse")
            if watched and not value.abs() <= self.config.divergence.bound:
                where = f"epoch {self.epoch + 1}, step {step + 1}"
                raise self._diverged(f"{name} is {float(value)} at {where}")

    def _require_finite_weights(self) -> None:
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise self._diverged(f"{name} is not finite after epoch {self.epoch + 1}")

    def roll_back(self, run: RunFolder, error: Diverged) -> None:
        """Go back to the last saved epoch, more slowly.

        Raises:
            TrainingDiverged: when the policy is to stop, or it happened too often.
        """
        settings = self.config.divergence
        policy = settings.policy or self.config.method.on_divergence
        state = run.load()
        if policy == "stop" or state is None or self.divergences >= settings.limit:
            often = f" ({self.divergences} times rolled back)" if self.divergences else ""
            raise TrainingDiverged(f"{run.folder}: {error}{often}") from error
        divergences, spent = self.divergences + 1, self.gradients
        self.restore(state)
        slower = settings.lower ** (divergences - state.divergences)
        self.scheduler.base_lrs = [rate * slower for rate in self.scheduler.base_lrs]
        for group in self.optimizer.param_groups:
            group["lr"] *= slower
        self.divergences, self.gradients = divergences, spent

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
            config=digest(self.config.identity),
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scheduler=self.scheduler.state_dict(),
            average=None if self.average is None else self.average.state_dict(),
            history=self.history,
            kept=self.kept,
            kept_epoch=self.kept_epoch,
            kept_buffer=self.kept_buffer,
            divergences=self.divergences,
            gradients=self.gradients,
            buffer=whole_buffer(self.buffer, self.world),
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
        self.kept_buffer = state.kept_buffer
        self.divergences, self.gradients = state.divergences, state.gradients
        if self.buffer is not None and state.buffer is not None:
            images, classes = state.buffer.to(self.device), self.buffer.classes
            self.buffer = shared_buffer(ReplayBuffer.of(images, classes), self.world)

    def metadata(self, state: State) -> CheckpointMetadata:
        """Describe the kept weights."""
        config = self.config
        mean, std = self.statistics
        return CheckpointMetadata(
            kind=config.method.kind,
            model=config.model,
            head=config.method.head,
            shape=list(self.data.shape),
            classes=list(self.data.classes),
            mean=mean.tolist(),
            std=std.tolist(),
            data=config.data,
            threat=config.threat,
            method=config.title,
            seed=config.seed,
            epoch=state.kept_epoch,
            finished=state.epoch == config.epochs,
            fingerprint=self.fingerprint,
            divergences=state.divergences,
            gradients=state.gradients,
            labels=config.labels,
            config=config.dump(),
        )
