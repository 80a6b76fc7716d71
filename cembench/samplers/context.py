"""What chains of samples can start from: seeds, a replay buffer, training images, other data."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from cembench.data import DataSettings
from cembench.data.resize import resized
from cembench.data.split import Split
from cembench.energy.threat import Threat
from cembench.models.metadata import CheckpointMetadata
from cembench.samplers import Sampler, Scene
from cembench.samplers.initial import FITTED, GaussianInit, ReplayBuffer, fit_gaussians
from cembench.util.errors import CembenchError, SamplingError
from cembench.util.layout import RunLayout
from cembench.util.tensors import read_tensors


class Origins:
    """Everything that chains of a checkpoint can start from, read when it is first asked for.

    Seeds are fitted on the images that training used: not on those held out.
    """

    def __init__(
        self,
        file: Path,
        metadata: CheckpointMetadata,
        device: torch.device,
        threat: Threat | None = None,
    ) -> None:
        self.buffer_file = RunLayout.at(file).buffer
        self.metadata = metadata
        self.device = device
        self.threat = threat or metadata.threat
        self._seeds: dict[tuple[str, int], GaussianInit] = {}

    @cached_property
    def data(self) -> Split:
        """The training images."""
        return self.metadata.training_split()[0].to(self.device)

    def seeds(self, start: str, clusters: int) -> GaussianInit:
        """Return the Gaussians of the training images, fitted once."""
        if (start, clusters) not in self._seeds:
            self._seeds[start, clusters] = fit_gaussians(start, self.data, clusters)
        return self._seeds[start, clusters]

    @cached_property
    def buffer(self) -> ReplayBuffer:
        """The replay buffer that training left.

        Raises:
            SamplingError: when there is none, or it is not this network's.
        """
        path = self.buffer_file
        try:
            images = read_tensors(path)["images"].to(self.device)
        except (CembenchError, KeyError) as error:
            raise SamplingError(
                f"{path}: no replay buffer, or damaged; start from gaussian or noise"
            ) from error
        classes = 1 if self.metadata.kind == "encoder" else len(self.metadata.classes)
        if list(images.shape[1:]) != self.metadata.shape or len(images) % classes:
            raise SamplingError(f"{path}: a replay buffer of another network")
        return ReplayBuffer.of(images, classes)

    def scene(self, sampler: Sampler, generator: torch.Generator) -> Scene:
        """Return what a sampler needs, and nothing that it does not."""
        start = sampler.begins
        outside = getattr(sampler, "outside", None) if start == "outside" else None
        fitted_on = getattr(sampler, "renewal", "") if start == "buffer" else start
        seeds = None
        if fitted_on in FITTED:
            seeds = self.seeds(fitted_on, getattr(sampler, "clusters", 1))
        return Scene(
            self.threat,
            generator,
            seeds=seeds,
            buffer=self.buffer if start == "buffer" else None,
            outside=None if outside is None else self._outside(outside),
            data=self.data if getattr(sampler, "others", 0) else None,
        )

    def rows(self, sampler: Sampler, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return the numbers of training images, N: random ones of labels y, or the one given.

        Raises:
            CembenchError: when the given one is not there.
        """
        given = getattr(sampler, "image", None)
        if given is not None and given >= len(self.data):
            raise CembenchError(f"image: {given} of {len(self.data)} training images")
        if given is not None:
            return torch.full_like(y, given)
        scores = torch.rand(len(y), len(self.data), generator=generator, device=y.device)
        scores[(y[:, None] >= 0) & (y[:, None] != self.data.labels)] = -1
        return scores.argmax(1)

    def blank(self, count: int) -> Tensor:
        """Return black images, for samplers that look at their shape alone."""
        return torch.zeros(count, *self.metadata.shape, device=self.device)

    def _outside(self, settings: object) -> Split:
        assert isinstance(settings, DataSettings)
        return resized(settings.load("train"), self.metadata.shape).to(self.device)


def buffer_of(file: Path) -> Path:
    """Return where the replay buffer of a checkpoint lies: beside it, and with its name."""
    return RunLayout.at(file).buffer
