"""Classifier: a network with its pixel normalisation, from pixels to logits or embeddings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from cembench.models import ModelSettings, Shape
from cembench.models.heads import Head
from cembench.util.errors import CembenchError, ModelError, one_line, said
from cembench.util.frozen import frozen
from cembench.util.processes.meeting import LostProcessError

if TYPE_CHECKING:
    from cembench.models.metadata import CheckpointMetadata


LARGE = 2**20  # values of an image that networks are not tried on with memory


class Classifier(nn.Module):
    """Network with its pixel normalisation inside, so that every attack works in pixels.

    `forward` maps float images in [0, 1], N×C×H×W, to N×K logits; with a projection head it is an
    encoder, and gives N×D embeddings of length 1.

    Attributes:
        encodes: whether it is one.
        metadata: of the checkpoint that it comes from, if any.
    """

    mean: Tensor
    std: Tensor
    metadata: CheckpointMetadata | None = None

    def __init__(self, net: nn.Module, mean: Tensor, std: Tensor, head: Head | None = None) -> None:
        super().__init__()
        self.net = net
        self.encodes = head is not None and head.encodes
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1))
        self.register_buffer("std", std.reshape(1, -1, 1, 1))

    def __call__(self, x: Tensor) -> Tensor:
        """Return what `forward` does; an error names the network (outside what is compiled).

        Raises:
            ModelError: when the network raises anything.
        """
        return called(super().__call__, x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, or the embeddings."""
        return self.net((x - self.mean) / self.std)

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the last layer, N×D.

        Raises:
            ModelError: when the architecture has no `features` of that form, or no `head`.
        """
        features, kind = getattr(self.net, "features", None), type(self.net).__name__
        if not callable(features) or not isinstance(getattr(self.net, "head", None), nn.Module):
            raise ModelError(f"{kind} has no features(x) with a head on them")
        found = called(features, (x - self.mean) / self.std)
        if found.dim() != 2:
            raise ModelError(f"{kind} has no features(x): they are {tuple(found.shape)}, not N×D")
        return found

    @property
    def encoder(self) -> nn.Module:
        """Map from images to embeddings of length 1: itself, or its features scaled to length 1."""
        return self if self.encodes else UnitFeatures(self)


class UnitFeatures(nn.Module):
    """Features of a classifier as embeddings."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return N×D features of length 1."""
        return normalize(self.model.features(x).float())


def called(network: Callable[[Tensor], Any], x: Tensor) -> Any:
    """Return what a network makes of images.

    A GPU that runs out of memory is no error of the network: a smaller batch may do.

    Raises:
        ModelError: saying in one line what the network raised.
    """
    try:
        return network(x)
    except (CembenchError, LostProcessError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        where = f"in forward on images {tuple(x.shape)}"
        raise ModelError(f"the network raised {said(error)}; {where}") from error


def build_classifier(
    settings: ModelSettings,
    shape: Shape,
    classes: int,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    head: Head | None = None,
) -> Classifier:
    """Build a network and try it on one black image.

    Pixel means and standard deviations, one per channel, are 0 and 1 unless given. A head takes the
    place of its last layer.

    Raises:
        ModelError: when the network fails on the shape, has no features for a head, or does not
            give `classes` logits.
    """
    mean = torch.zeros(shape[0]) if mean is None else mean
    std = torch.ones(shape[0]) if std is None else std
    with _refusals(settings.title, shape):
        model = Classifier(settings.build(shape, classes), mean, std, head).eval()
        if head is not None:
            dimension = _answer(Classifier.features, model, shape).shape[1]
            model.net.head = head.build(dimension, classes).eval()
    try_on(model, shape, classes if head is None else head.outputs(classes), settings.title)
    return model.train()


def try_on(model: Classifier, shape: Shape, outputs: int, title: str) -> None:
    """Run a network on one black image, without any effect on it.

    Raises:
        ModelError: when it fails, or does not give `outputs` numbers.
    """
    with _refusals(title, shape), frozen(model), suppress(NotImplementedError):
        check_logits(_answer(Classifier.forward, model, shape), 1, outputs)


def _answer(method: Callable[..., Tensor], model: Classifier, shape: Shape) -> Tensor:
    """Return what a method gives for one black image; for a large image its shape alone.

    Large ones take minutes and gigabytes in some networks, so the meta device has to do, on which
    a network that looks at values raises NotImplementedError.
    """
    model = model if math.prod(shape) <= LARGE else copy.deepcopy(model).to("meta")
    with torch.no_grad():
        return method(model, torch.zeros(1, *shape, device=model.mean.device))


@contextmanager
def _refusals(title: str, shape: Shape) -> Iterator[None]:
    try:
        yield
    except CembenchError:
        raise
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise ModelError(f"model '{title}' does not take {shape}: {reason}") from error


def check_logits(out: object, rows: int, classes: int) -> None:
    """Refuse outputs that are not a rows×classes tensor of real numbers.

    Raises:
        ModelError: naming both shapes, or the type.
    """
    got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if got != (rows, classes):
        raise ModelError(f"the model returned {got}, expected {rows}×{classes} logits")
    if isinstance(out, Tensor) and (out.is_complex() or out.layout != torch.strided):
        kind = f"{out.dtype}, {out.layout}".replace("torch.", "")
        raise ModelError(f"the model returned logits of {kind}, expected a dense tensor of numbers")
