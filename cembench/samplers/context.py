"""Initial images of a training run and of a checkpoint, built from what a sampler needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from cembench.data import DataSettings
from cembench.data.resize import resized
from cembench.data.split import Split
from cembench.energy.threat import Threat
from cembench.models.metadata import CheckpointMetadata
from cembench.samplers import InitialImages, Needs, Sampler, SamplerContext
from cembench.samplers.initial import GaussianInit, ReplayBuffer, fit_gaussians
from cembench.util.errors import CembenchError, SamplingError
from cembench.util.files.layout import RunLayout
from cembench.util.files.tensors import read_tensors
from cembench.util.rng import derive, generator_of


class ImageSource(ABC):
    """Source of initial images; each kind is fitted or loaded when a sampler first needs it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._gaussians: dict[tuple[str, int], GaussianInit] = {}

    @property
    @abstractmethod
    def data(self) -> Split:
        """Training images, on the device."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of the images."""

    @abstractmethod
    def replay_buffer(self, size: int, gaussians: GaussianInit | None) -> ReplayBuffer:
        """Return the replay buffer.

        Args:
            size: number of images, if it is a new one.
            gaussians: what its first images are drawn from; noise unless given.
        """

    def gaussians(self, kind: str, clusters: int) -> GaussianInit:
        """Return Gaussians of the training images, fitted once per kind."""
        if (kind, clusters) not in self._gaussians:
            self._gaussians[kind, clusters] = fit_gaussians(kind, self.data, clusters)
        return self._gaussians[kind, clusters]

    def initial(self, sampler: Sampler | None) -> InitialImages:
        """Return the images that a sampler needs, and no others."""
        needs = Needs() if sampler is None else sampler.needs()
        gaussians = None
        if needs.gaussians is not None:
            gaussians = self.gaussians(needs.gaussians, needs.clusters)
        return InitialImages(
            gaussians=gaussians,
            buffer=self.replay_buffer(needs.buffer_size, gaussians) if needs.buffer_size else None,
            other_data=None if needs.other_data is None else self._resized(needs.other_data),
            training=self.data if needs.bank_size else None,
        )

    def _resized(self, other: DataSettings) -> Split:
        return resized(other.load("train"), self.shape).to(self.device)


class TrainingImages(ImageSource):
    """Initial images of a training run.

    Args:
        data: training images, on the device; without labels all are of class 0.
        seed: seed of the run, which decides the first images of the buffer.
        labelled: whether the buffer has one part per class, or one in all.
    """

    def __init__(self, data: Split, seed: int, labelled: bool = True) -> None:
        super().__init__(data.device)
        self._data, self.seed = data, seed
        self.classes = len(data.classes) if labelled else 1

    @property
    def data(self) -> Split:
        """Training images."""
        return self._data

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of the images."""
        return self._data.shape

    def replay_buffer(self, size: int, gaussians: GaussianInit | None) -> ReplayBuffer:
        """Return a buffer of noise, or of draws from Gaussians where the sampler wants them."""
        generator = generator_of(derive(self.seed, "buffer"), self.device)
        return ReplayBuffer(size, self.shape, self.classes, generator, gaussians)

    def initial(self, sampler: Sampler | None) -> InitialImages:
        """Return the images that a sampler needs, and class-conditional Gaussians in any case.

        A second sampler of the method may start from those; until then they cost nothing.
        """
        found = super().initial(sampler)
        return replace(found, gaussians=found.gaussians or self.gaussians("gaussian", 1))


class CheckpointImages(ImageSource):
    """Initial images of the samples of a checkpoint.

    Gaussians are fitted on the images that training used, without those held out.

    Args:
        file: the checkpoint, beside which its replay buffer lies.
        metadata: its metadata.
        device: where to sample.
        threat: threat model; that of the metadata unless given.
    """

    def __init__(
        self,
        file: Path,
        metadata: CheckpointMetadata,
        device: torch.device,
        threat: Threat | None = None,
    ) -> None:
        super().__init__(device)
        self.buffer_file = RunLayout.at(file).buffer
        self.metadata = metadata
        self.threat = threat or metadata.threat

    @cached_property
    def data(self) -> Split:
        """Training images, without those held out for validation."""
        return self.metadata.training_split()[0].to(self.device)

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of the images."""
        return tuple(self.metadata.shape)

    def replay_buffer(self, size: int, gaussians: GaussianInit | None) -> ReplayBuffer:
        """Return the replay buffer that training left, whatever its size.

        Raises:
            SamplingError: when there is none, or it belongs to another network.
        """
        return self._saved_buffer

    @cached_property
    def _saved_buffer(self) -> ReplayBuffer:
        path = self.buffer_file
        try:
            images = read_tensors(path)["images"]
        except (CembenchError, KeyError) as error:
            raise SamplingError(
                f"{path}: no replay buffer, or damaged; start from gaussian or noise"
            ) from error
        classes = 1 if self.metadata.kind == "encoder" else len(self.metadata.classes)
        if images.shape[1:] != self.shape or len(images) % classes:
            raise SamplingError(f"{path}: a replay buffer of another network")
        return ReplayBuffer.of(images, classes, self.device)

    def context(self, sampler: Sampler, generator: torch.Generator) -> SamplerContext:
        """Return the context of a sampler, with the threat model and the images it needs."""
        return SamplerContext(self.threat, generator, self.initial(sampler))
