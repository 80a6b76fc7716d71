"""Trainer: one epoch, one step, and the state that a run resumes from."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cembench.data.split import Split
from cembench.models.metadata import CheckpointMetadata
from cembench.models.sync_batchnorm import synchronise
from cembench.samplers import SamplerContext
from cembench.samplers.context import TrainingImages
from cembench.samplers.initial import ReplayBuffer
from cembench.training import ddp
from cembench.training.build import build_metadata, build_model, followed
from cembench.training.config import Experiment
from cembench.training.divergence import Watch, require_finite
from cembench.training.epoch import Epoch, Midway
from cembench.training.feed import Batch, Feed
from cembench.training.optim import build_average, build_optimizer, build_scheduler
from cembench.training.run_folder import State
from cembench.training.selection import best_epoch, summary
from cembench.training.validation import validate
from cembench.util.errors import ModelError, said
from cembench.util.files import digest
from cembench.util.processes.distributed import world
from cembench.util.progress import Bar
from cembench.util.rng import derive, seed_everything
from cembench.util.stages import stage
from cembench.util.stopping import asked

LOOK = 8  # steps between two looks at a device that computes ahead


class Trainer:
    """Experiment in progress.

    Attributes:
        world: the processes that share each batch, all of them in the same state.
        feed: what the steps read.
        data: training images, without labels unless the method may know them.
        held: images held out for validation, with labels.
        batch: images per step, of all processes together.
        steps: steps per epoch.
        learns_features: whether all weights are trained, or those of the head alone.
        initial: initial images of the method's sampler, with this process's part of the buffer.
        objective: the loss of the method as a module, which DDP wraps.
        watch: what keeps a loss beyond the bound from changing the weights.
        surrogate: copy of the network that samplers follow, where there is one.
        average: moving average of the weights, if there is one.
        epoch: epochs done.
        midway: what is done of the next one, where that was interrupted.
        saved: when the state was last saved, as `time.monotonic` tells.
        history: one row per epoch.
        kept: weights of the selected epoch, `kept_epoch`, with their `kept_buffer`.
        divergences: times that training was rolled back.
        gradients: gradient evaluations, images times steps, rolled-back epochs included.
        memory: what the method keeps from step to step.
    """

    def __init__(self, config: Experiment, device: torch.device) -> None:
        self.config, self.device, self.world = config, device, world()
        self.feed = Feed(config, device, self.world)
        self.data, self.held = self.feed.data, self.feed.held
        self.batch, self.steps = self.feed.batch, self.feed.steps
        self.labelled = config.method.labels == "all"
        seed_everything(derive(config.seed, "weights"))
        self._build_model(self.feed.first)
        source = TrainingImages(self.data, config.seed, self.labelled)
        initial = source.initial(config.method.sampler)
        self.initial = replace(initial, buffer=ddp.shared_buffer(initial.buffer, self.world))
        self.epoch = 0
        self.midway: Midway | None = None
        self.saved = time.monotonic()
        self.history: list[dict[str, float]] = []
        self.kept: dict[str, Tensor] = {}
        self.kept_epoch = 0
        self.kept_buffer: Tensor | None = None
        self.divergences = 0
        self.gradients = 0 if config.pretrained is None else config.pretrained.gradients
        self.memory: dict[str, Any] = {}

    def _build_model(self, training: Split) -> None:
        config = self.config
        self.learns_features = config.pretrained is None or not config.pretrained.frozen
        model, self.statistics = build_model(config, training)
        self.model = model.to(self.device).to(memory_format=self.feed.layout)
        if self.world.size > 1 and config.batch_norm == "synchronised":
            synchronise(self.model)
        if config.compile:
            self.model.compile(dynamic=False)
        self.optimizer = build_optimizer(config.optimizer, self.model)
        self.watch = Watch(config.divergence.bound, self.optimizer, self.device)
        steps = max(1, self.steps)
        self.scheduler = build_scheduler(config.schedule, self.optimizer, config.epochs, steps)
        self.surrogate = followed(config, self.model, self.data.pixels(slice(2)))
        self.average = build_average(self.model, config.ema if config.method.trainable else 0.0)
        self.objective: nn.Module = ddp.MethodLoss(self.model, config.method)

    def wrap_ddp(self) -> None:
        """Average gradients over all processes from now on; every process has to call it."""
        if self.config.method.trainable:
            self.objective = ddp.wrap_ddp(self.objective, self.world, self.device)

    @property
    def evaluated(self) -> nn.Module:
        """Network that is validated and kept: the average of weights, if there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def steps_done(self) -> int:
        """Steps taken of the run."""
        return self.epoch * self.steps + (0 if self.midway is None else self.midway["steps"])

    def run_epoch(self, bar: Bar) -> State:
        """Train to the end of the epoch, validate, and return the state to save.

        It returns within the epoch when a signal asks to stop or `save_every` is over; the next
        call goes on from there.

        Raises:
            Diverged: when loss, energy or weights are not finite or beyond the bound.
        """
        stream = (self.config.seed, "epoch", self.epoch, self.divergences)
        rate = self.optimizer.param_groups[0]["lr"]
        order = partial(self.feed.order, self.epoch)
        epoch = Epoch(stream, order, self.device, self.world, rate, self.midway)
        with stage("training steps"):
            whole = self._run_steps(epoch, bar)
        found = self._validated() if whole else None
        if found is None:
            self.midway = epoch.midway()
        else:
            self._end(epoch, found)
            words = summary(epoch.sums, self.steps, self.history)
            bar.report(f"epoch {self.epoch}/{self.config.epochs} {words}")
        return self.state()

    def _run_steps(self, epoch: Epoch, bar: Bar) -> bool:
        """Take the steps that are left, and return whether the epoch may end now."""
        if self.epoch == 0 and epoch.steps == 0:
            self.config.method.fit(self.model, self.data)
        check = partial(self.watch.require, self.epoch)
        for batch in self.feed.read(epoch.order, epoch.steps):
            epoch.add(self.step(epoch.steps, batch, epoch.generator))
            looks = self.watch.waits or epoch.steps % LOOK == 0 or epoch.steps == self.steps
            if looks:
                epoch.read(check)
            words = summary(epoch.sums, epoch.counted, self.history)
            bar.advance(self.batch, f"epoch {self.epoch + 1} {words}")
            stops = looks or self.world.size == 1
            if stops and self.world.highest(asked() or int(self._save_is_due())):
                epoch.read(check)
                return False
        return True

    def _save_is_due(self) -> bool:
        minutes = self.config.save_every
        return minutes is not None and time.monotonic() - self.saved > 60 * minutes

    def _validated(self) -> dict[str, float] | None:
        """Return what validation finds after this epoch; None when it was asked to stop first."""
        require_finite(self.model, self.epoch)
        epoch = self.epoch + 1
        if epoch % self.config.validation.every and epoch != self.config.epochs:
            return {}
        given = self.evaluated, self.held, self.config, self.batch
        with stage("validation"):
            if ddp.same_buffers(self.model):
                return validate(*given, self.world)
            return self.world.on_rank_zero(lambda: validate(*given))

    def _end(self, epoch: Epoch, found: dict[str, float]) -> None:
        """Add the row of an epoch to the history, and keep the weights if they are the best."""
        self.epoch += 1
        self.midway = None
        row: dict[str, float] = {"epoch": self.epoch, "lr": epoch.lr}
        row |= {key: total / self.steps for key, total in epoch.sums.items()} | found
        row |= {"divergences": self.divergences, "gradients": self.gradients}
        row["seconds"] = epoch.seconds
        self.history.append(row)
        self._keep_if_best()

    def _keep_if_best(self) -> None:
        method = self.config.method
        if best_epoch(self.history, self.config.select, method.first_kept) != self.epoch:
            return
        self.kept_epoch = self.epoch
        self.kept = {key: value.cpu().clone() for key, value in self.evaluated.state_dict().items()}
        if self.config.select != "last":  # else it is the buffer of the state
            buffer = ddp.whole_buffer(self.initial.buffer, self.world)
            self.kept_buffer = None if buffer is None else buffer.clone()

    def step(self, step: int, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one optimiser step on a batch, and return the loss and what else is logged.

        Each of several processes has its share of the batch; the returned values are means.

        Raises:
            Diverged: when the loss is not finite; the weights have not changed then. Where
                the watch does not wait, `run_epoch` raises it a few steps later.
        """
        config, method = self.config, self.config.method
        self.model.train(self.learns_features)
        x, y = self.feed.pixels(batch, generator), batch.labels
        threat = method.threat_at(config.threat, self.epoch + step / self.steps)
        history = self.history if self.labelled else ()
        growth = threat.eps / config.threat.eps if config.threat.eps else 1.0
        given = (self.initial, history, self.epoch, self.memory, growth, self.surrogate)
        context = SamplerContext(threat, generator, *given)
        self.gradients += method.cost(context) * self.batch
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss, parts = self.objective(x, y, context)
        values = self.world.mean({"loss": loss.detach(), **parts})
        logged = {name: value for name, value in values.items() if value.dim() == 0}
        self.watch.see(logged, self.epoch, step)
        self._update_weights(loss)
        method.learn(self.memory, values, self.batch)
        return logged

    def _update_weights(self, loss: Tensor) -> None:
        clip = self.config.optimizer.clip
        self.optimizer.zero_grad()
        failure = f"model '{self.config.model.title}' cannot be trained: "
        if not loss.requires_grad:
            reason = "its loss has no gradient with respect to its weights"
            raise ModelError(f"{failure}{reason} (does it compute under no_grad, or in NumPy?)")
        try:
            loss.backward()
        except NotImplementedError as error:
            raise ModelError(f"{failure}its backward pass raised {said(error)}") from error
        if clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state(self) -> State:
        """Return the state that a run resumes from, which is to be saved."""
        self.saved = time.monotonic()
        buffer = ddp.whole_buffer(self.initial.buffer, self.world)
        last = self.config.select == "last" and self.midway is None and self.epoch > 0
        last = last and self.kept_epoch == self.epoch
        return State(
            epoch=self.epoch,
            data=self.feed.fingerprint,
            config=digest(self.config.identity),
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scheduler=self.scheduler.state_dict(),
            average=None if self.average is None else self.average.state_dict(),
            history=self.history,
            kept=self.kept,
            kept_epoch=self.kept_epoch,
            kept_buffer=buffer if last else self.kept_buffer,
            divergences=self.divergences,
            gradients=self.gradients,
            buffer=buffer,
            midway=self.midway,
            memory=copy.deepcopy(self.memory),
        )

    def restore(self, state: State) -> None:
        """Go back to a saved state."""
        self.watch.forget()
        self.model.load_state_dict(state.model)
        self.optimizer.load_state_dict(state.optimizer)
        self.scheduler.load_state_dict(state.scheduler)
        if self.average is not None and state.average is not None:
            self.average.load_state_dict(state.average)
        self.epoch, self.history, self.midway = state.epoch, state.history, state.midway
        self.kept, self.kept_epoch = state.kept, state.kept_epoch
        self.kept_buffer = None if self.config.select == "last" else state.kept_buffer
        self.divergences, self.gradients = state.divergences, state.gradients
        self.memory = copy.deepcopy(state.memory)
        if self.initial.buffer is not None and state.buffer is not None:
            classes = self.initial.buffer.classes
            whole = ReplayBuffer.of(state.buffer, classes, self.device)
            buffer = ddp.shared_buffer(whole, self.world)
            self.initial = replace(self.initial, buffer=buffer)

    def metadata(self, state: State) -> CheckpointMetadata:
        """Return the metadata of the kept weights."""
        return build_metadata(self.config, self.data, self.statistics, state)
