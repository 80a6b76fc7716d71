"""Networks and their samples from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cembench.api.arguments import checked
from cembench.api.data import parse_data
from cembench.api.subject import subject
from cembench.interop.hub.cache import local
from cembench.samplers import Sampler, samplers
from cembench.samplers.counterfactual import Counterfactual
from cembench.samplers.edit import Edit
from cembench.samplers.restoration import Denoise, Inpaint
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.models.checkpoint import load_checkpoint
    from cembench.models.classifier import Classifier
    from cembench.samplers.context import CheckpointImages
    from cembench.samplers.draw import Samples
    from cembench.samplers.edit_files import edited_by, images_to_edit
    from cembench.samplers.edited import Edited
    from cembench.samplers.to_files import iter_samples


@checked
def load(path: str | Path, device: str = "cpu") -> Classifier:
    """Return the network of a checkpoint or run folder, in evaluation mode.

    It maps float images in [0, 1], N×C×H×W, to N×K logits (an encoder: to N×D embeddings of length
    1); `metadata` says what it is.

    Args:
        path: the file, or the folder of its run; or an address, such as `hf://USER/NAME`, which is
            fetched into the user's cache.
        device: where it goes.

    Raises:
        CembenchError: for a missing, damaged or foreign file.
    """
    return load_checkpoint(local(path), pick_device(device))[0]


@checked
def sample(
    model: str | Path | nn.Module,
    sampler: str | Mapping[str, Any] | Sampler = "rcs",
    count: int = 80,
    *,
    data: Any = None,
    label: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data_root: str | None = None,
    **settings: Any,
) -> Samples:
    """Draw samples, all classes in turn; none is filtered.

    Args:
        model: a checkpoint or run folder, or a network in memory.
        sampler: a name of `cembench list samplers`, or its settings.
        count: the number of samples, N.
        data: what a network in memory classifies: a data set by name, or training images from
            memory as `dataset` takes them. Initial images are fitted on its training images.
        label: the one class to draw.
        seed: decides starts and noise.
        device: where to compute.
        data_root: where the data of a checkpoint lies now.
        settings: of the sampler, such as `steps=40` or `start="noise"`.

    Returns:
        `images` and `starts`, N×C×H×W, float32 in [0, 1]; `labels`, N; `logits`, N×K.

    Raises:
        SamplingError: when the chains leave the finite numbers, or lack what they start from.
    """
    if count < 1:
        raise CembenchError(f"count: give 1 or more, got {count}")
    chosen = _sampler(sampler, settings)
    given = None if data is None else parse_data(data, "train")
    source = subject(model, given).moved(data_root)
    classes = len(source.metadata.classes)
    if label is not None and not 0 <= label < classes:
        raise CembenchError(f"label: {label} is no class; give 0 to {classes - 1}")
    images = CheckpointImages(source.file, source.metadata, torch.device(pick_device(device)))
    chunks = iter_samples(source, chosen, images, count, label, seed)
    return Samples.joined([drawn for drawn, _ in chunks])


@checked
def counterfactuals(
    model: str | Path | nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    eps: float,
    target: int | Tensor | None = None,
    count: int = 80,
    device: str = "auto",
    data_root: str | None = None,
    **settings: Any,
) -> Edited:
    """Change images as little as it takes until the network reads them as another class.

    Args:
        model: a checkpoint or run folder; with images, also a network in memory.
        images: N×C×H×W, floats in [0, 1]; test images of the checkpoint unless given.
        labels: their classes, N, for pictures; what the network reads unless given.
        eps: the largest change, in pixels on [0, 1].
        target: the new class, or one for each image, N; the second most likely one unless given.
        count: the number of test images.
        device: where to compute.
        data_root: where the data of a checkpoint lies now.
        settings: of the search, such as `confidence=0.9`, `norm="l2"` or `steps=100`.

    Returns:
        `images` and `originals`, N×C×H×W; `labels`, the new classes, N; their `distance` and
        `confidence`, N.

    Raises:
        CembenchError: for a missing checkpoint, wrong settings, or an encoder.
    """
    edit = Counterfactual.parse({"eps": eps, **settings})
    return _edited(model, edit, images, labels, target, count, 0, device, data_root)


@checked
def restore(
    model: str | Path | nn.Module,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    inpaint: str | None = None,
    denoise: float | None = None,
    sampler: str | Mapping[str, Any] = "rcs",
    target: int | Tensor | None = None,
    count: int = 80,
    seed: int = 0,
    device: str = "auto",
    data_root: str | None = None,
) -> Edited:
    """Fill a part of images, or remove noise that is added to them first.

    Args:
        model: a checkpoint or run folder; with images, also a network in memory.
        images: N×C×H×W, floats in [0, 1]; test images of the checkpoint unless given.
        labels: their classes, N; what the network reads unless given.
        inpaint: the part to fill: `top`, `bottom`, `left`, `right`, `centre` or `random:0.5`.
        denoise: or the standard deviation of the noise, in pixels on [0, 1].
        sampler: whose chains restore: `rcs`, `cs`, `ta` or `sgld`, or its settings.
        target: the class of the result, or one for each image, N; the labels unless given.
        count: the number of test images.
        seed: decides noise and random pixels.
        device: where to compute.
        data_root: where the data of a checkpoint lies now.

    Returns:
        `images`, `starts` (the damaged images) and `originals`, N×C×H×W.

    Raises:
        CembenchError: for a missing checkpoint, wrong settings, or an encoder.
    """
    if (inpaint is None) == (denoise is None):
        raise CembenchError("restore: give inpaint or denoise")
    edit: Edit
    if inpaint is not None:
        edit = Inpaint.parse({"part": inpaint, "sampler": sampler})
    else:
        edit = Denoise.parse({"sigma": denoise, "sampler": sampler})
    return _edited(model, edit, images, labels, target, count, seed, device, data_root)


def _sampler(sampler: Any, settings: Mapping[str, Any]) -> Sampler:
    """Return the settings of a sampler from its name, or from settings, and more of them."""
    if isinstance(sampler, str):
        sampler = {"name": sampler}
    if isinstance(sampler, Mapping):
        return samplers.parse({**sampler, **settings})
    if not isinstance(sampler, Sampler):
        raise CembenchError(f"sampler: a {type(sampler).__name__} is no name or settings of one")
    if settings:
        raise CembenchError(f"{', '.join(settings)}: the sampler has its own settings")
    return sampler


def _edited(
    model: str | Path | nn.Module,
    edit: Edit,
    images: Tensor | None,
    labels: Tensor | None,
    target: int | Tensor | None,
    count: int,
    seed: int,
    device: str,
    data_root: str | None,
) -> Edited:
    """Edit given images, or test images of a checkpoint."""
    place = torch.device(pick_device(device))
    if isinstance(model, nn.Module) and images is not None:
        net = model.to(place)
    else:
        source = subject(model, None).moved(data_root)
        net = source.load(place)
    if images is None:
        apart = target if edit.avoids_target and isinstance(target, int) else None
        images, labels = images_to_edit(source.metadata, count, apart)
    wanted = torch.full((len(images),), target) if isinstance(target, int) else target
    return edited_by(net, edit, images, labels, wanted, seed)
