"""The context of an evaluation: a network, its data and a protocol that fit together."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from cembench.data.split import Split, subset
from cembench.energy.threat import Threat
from cembench.evaluation import corrupted
from cembench.evaluation.cache import ChunkCache
from cembench.evaluation.extractors.features import FeatureReader, shared_reader
from cembench.evaluation.measures.reference import ReferenceSet
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record_header import header_of
from cembench.evaluation.throughput import train_rate
from cembench.models.checkpoint import weights_digest
from cembench.models.classifier import Classifier
from cembench.models.metadata import CheckpointMetadata
from cembench.models.source import ModelSource
from cembench.samplers import Sampler
from cembench.samplers.context import CheckpointImages
from cembench.util.errors import CembenchError, blaming
from cembench.util.files import digest
from cembench.util.files.layout import RunLayout
from cembench.util.shared import shared

log = logging.getLogger("cembench")


@dataclass(frozen=True)
class EvaluationContext:
    """An evaluation to run, or to repeat from saved artifacts.

    Attributes:
        source: the network.
        metadata: its metadata, with its data where they lie now.
        protocol: what is measured of a network of this kind.
        header: the record before anything is measured.
        path: the file of the record.
        whole: the images of the protocol's split.
        split: those of them that are attacked, on the device.
        rows: their numbers in the whole split.
        images: initial images of samplers, and the device.
        reader: what reads features, if samples are wanted.
        cache: where finished chunks are kept, if anywhere.
    """

    source: ModelSource
    metadata: CheckpointMetadata
    protocol: Protocol
    header: Record
    path: Path
    whole: Split
    split: Split
    rows: Tensor
    images: CheckpointImages
    reader: FeatureReader | None
    cache: ChunkCache | None = None

    @cached_property
    def model(self) -> Classifier:
        """The network on the device.

        Raises:
            ModelError: when it breaks its contract.
        """
        return self.source.load(self.images.device)

    @cached_property
    def reference(self) -> ReferenceSet | None:
        """The real images that samples are compared with, if there are samples.

        Raises:
            CembenchError: when there are too few images.
        """
        if self.reader is None:
            return None
        config, reader = self.protocol.samples, self.reader

        def key() -> tuple[FeatureReader, str]:
            own = config.model_dump(exclude={"samplers", "batch_size"})
            trained = self.metadata.fingerprint or self.images.data.fingerprint
            return reader, digest([own, self.whole.fingerprint, trained, self.metadata.held_out])

        make = partial(ReferenceSet, config, reader, self.whole, self.images.data)
        return shared("reference set", key, make)

    def facts(self) -> dict[str, object]:
        """Return what a record says of the network itself."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "weights_sha256": weights_digest(self.model.state_dict()),
            "train_images_per_second": self._train_rate(),
        }

    def _train_rate(self) -> float | None:
        """Return the training images per second; None where training images are not read."""
        layout = RunLayout.at(self.source.file)
        if self.reader is None or layout.own_name:
            return None
        return train_rate(layout.history, self.metadata, len(self.images.data))


def prepare(
    source: ModelSource,
    protocol: Protocol,
    device: torch.device,
    *,
    data_root: str | None = None,
    inception_weights: Path | None = None,
    folder: Path | None = None,
) -> EvaluationContext:
    """Return the context of an evaluation, with arguments as for `evaluate`; write nothing.

    Raises:
        CembenchError: when network, data and protocol do not fit together.
    """
    file, metadata = source.file, source.metadata.moved(data_root)
    measured = measured_of(protocol, metadata, file)
    if measured.samples is None and inception_weights is not None:
        raise CembenchError(f"--inception-weights: protocol {protocol.name} draws no samples")
    asked = protocol.samples is not None and metadata.kind == "classifier"
    left_out = ["samples"] if asked and measured.samples is None else []
    reader = None
    if measured.samples is not None:
        reader = shared_reader(measured.samples.extractor, device, inception_weights)
    metadata.require_named_root()
    try:
        whole = metadata.images(protocol.split)
        metadata.check(whole)
    except CembenchError as error:
        raise CembenchError(f"{file}: {error}") from error
    split, rows = subset(whole, protocol.limit)
    if measured.corruptions:
        corrupted.require_possible(measured.corruptions, whole)
    with blaming(file):
        header = header_of(source, metadata, protocol, split, device, reader, left_out)
        _require_possible(measured, header.threat, split.shape)
    for text in unusual_radii(measured, header.threat, split.shape):
        log.warning(text)
    path = RunLayout(folder or file.parent, file.name).record(protocol.name)
    images = CheckpointImages(file, metadata, device, header.threat)
    split = split.to(device)
    return EvaluationContext(
        source, metadata, measured, header, path, whole, split, rows, images, reader
    )


def _require_possible(protocol: Protocol, threat: Threat, shape: tuple[int, int, int]) -> None:
    """Refuse attacks that do not know the norm, and radii and steps that reach every image.

    Raises:
        CembenchError: naming the attacks that know it.
        ConfigError: naming the key.
    """
    if protocol.curve:
        protocol.curve.attack.require_norm(threat.norm)
    values = math.prod(shape)
    threat.ball.require_below_diameter("threat.eps", values)
    for radius in (protocol.curve and protocol.curve.eps) or []:
        if radius > threat.ball.diameter(values):
            replace(threat.ball, eps=radius).require_below_diameter("curve.eps", values)
    if protocol.counterfactuals:
        for search in protocol.counterfactuals.searches().values():
            search.ball.require_below_diameter("counterfactuals.eps", values)
    for number, other in enumerate(protocol.threats):
        other.ball.require_below_diameter(f"threats.{number}.eps", values)
    drawn = [] if protocol.samples is None else protocol.samples.samplers
    used = [(run.attack, run.threat or threat) for run in protocol.runs]
    for attack, where in used:
        attack.require_norm(where.norm)
    for sampler, where in (*used, *((one, threat) for one in drawn)):
        if isinstance(sampler, Sampler):
            sampler.require_possible(where)


def unusual_radii(protocol: Protocol, threat: Threat, shape: tuple[int, int, int]) -> list[str]:
    """Return a warning for each threat model whose radius is of another norm's scale."""
    found = [each.ball.caution(math.prod(shape)) for each in (threat, *protocol.threats[1:])]
    return [text for text in found if text]


def measured_of(protocol: Protocol, metadata: CheckpointMetadata, file: Path) -> Protocol:
    """Return what a protocol measures of a checkpoint: everything, or an encoder's samples alone.

    Samples start from training images and are compared with them, so without any there are none.

    Raises:
        CembenchError: when it measures nothing of an encoder, or needs training images alone.
    """
    part = protocol.measured_of(metadata.kind)
    if part is None:
        raise CembenchError(
            f"{file}: an encoder, of which protocol {protocol.name} measures nothing; fit a head "
            "with `cembench probe`, or add the sampler maxent or infonce"
        )
    if part.samples is None or metadata.data.has_training:
        return part
    left = part.without("samples")
    if left is None:
        raise CembenchError(
            f"{file}: protocol {protocol.name} draws samples, which needs training images; give "
            "them with train="
        )
    return left
