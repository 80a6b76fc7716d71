"""Edited test images as files: a picture of the first ones, and tensors of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cembench.data.split import subset
from cembench.models.metadata import CheckpointMetadata
from cembench.models.source import ModelSource
from cembench.samplers.edit import Edit
from cembench.samplers.edited import Edited
from cembench.samplers.rows import named
from cembench.util.devices import device_of
from cembench.util.display.image_grid import strips
from cembench.util.errors import CembenchError
from cembench.util.files import write_bytes
from cembench.util.files.tensors import write_tensors
from cembench.util.frozen import exact, frozen
from cembench.util.progress import Bar
from cembench.util.rng import derive, generator_of

BATCH = 256
SHOWN = 40  # images in a picture


def images_to_edit(
    metadata: CheckpointMetadata, count: int, apart: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the test images that a protocol with this limit attacks, and their classes.

    Args:
        metadata: of the network.
        count: how many of them, N, at most.
        apart: a class none of whose images are taken.

    Returns:
        Images in [0, 1], N×C×H×W, and their classes, N.

    Raises:
        CembenchError: when the data cannot be read, or no image is left.
    """
    whole = metadata.images("test")
    metadata.check(whole)
    if apart is not None:
        rows = (whole.labels != apart).nonzero().squeeze(1)
        if len(rows) == 0:
            raise CembenchError(f"all test images are of the class {metadata.classes[apart]}")
        whole = whole.take(rows)
    chosen = subset(whole, count)[0]
    return chosen.pixels(), chosen.labels


def edited_by(
    model: nn.Module,
    edit: Edit,
    x: Tensor,
    y: Tensor | None = None,
    target: Tensor | None = None,
    seed: int = 0,
    title: str = "",
) -> Edited:
    """Return images that a network edited, batch by batch, on the CPU.

    Args:
        model: images in [0, 1] to N×K logits; it is frozen meanwhile.
        edit: what to do.
        x: images, N×C×H×W.
        y: their classes, N; what the network reads unless given.
        target: the classes to approach, N; as the edit chooses unless given.
        seed: decides noise and random pixels.
        title: of the network, for progress.

    Raises:
        CembenchError: for an encoder, wrong images or classes, and values that are not finite.
    """
    metadata = getattr(model, "metadata", None)
    if isinstance(metadata, CheckpointMetadata) and metadata.kind == "encoder":
        raise CembenchError(
            f"{edit.title} need logits, and an encoder has none; fit a head with `cembench probe`"
        )
    device, parts = device_of(model), []
    _require_images(x)
    with Bar(f"{edit.title} {title}".strip(), len(x)) as bar, frozen(model), exact():
        read, classes = _read(model, x if y is None else x[:1], device)
        y = read if y is None else y
        _require_classes("labels", y, len(x), classes)
        if target is not None:
            _require_classes("target", target, len(x), classes)
        for number, rows in enumerate(torch.arange(len(x)).split(BATCH)):
            generator = generator_of(derive(seed, "edit", number), device)
            wanted = None if target is None else target[rows].to(device)
            given = x[rows].to(device), y[rows].to(device)
            parts.append(edit.apply(model, *given, wanted, generator).cpu())
            bar.advance(len(rows))
    edited = Edited.joined(parts)
    if not bool(edited.images.isfinite().all() & edited.logits.isfinite().all()):
        raise CembenchError(f"{edit.title}: values are not finite; lower step_size")
    return edited


def _require_images(x: Tensor) -> None:
    shaped = x.is_floating_point() and x.dim() == 4 and len(x) > 0
    if not (shaped and bool((x >= 0).all() & (x <= 1).all())):
        raise CembenchError("images: give floats in [0, 1], N×C×H×W, one at least")


def _require_classes(key: str, labels: Tensor, count: int, classes: int) -> None:
    inside = (labels >= 0) & (labels < classes)
    if labels.shape != (count,) or not bool(inside.all()):
        raise CembenchError(f"{key}: give {count} integers from 0 to {classes - 1}")


def _read(model: nn.Module, x: Tensor, device: torch.device) -> tuple[Tensor, int]:
    """Return the classes that a network reads, and how many it knows."""
    with torch.no_grad():
        outputs = [model(part.to(device)) for part in x.split(BATCH)]
    return torch.cat([out.argmax(1).cpu() for out in outputs]), outputs[0].shape[1]


def edit_images(
    source: ModelSource,
    edit: Edit,
    count: int,
    *,
    label: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Edited:
    """Return test images of a checkpoint that its network edited.

    Args:
        source: the network.
        edit: what to do.
        count: how many test images, at most.
        label: the one class to approach; as the edit chooses unless given.
        seed: decides noise and random pixels.
        device: where to compute.

    Raises:
        CembenchError: when the data cannot be read, and as `edited_by`.
    """
    x, y = images_to_edit(source.metadata, count, label if edit.avoids_target else None)
    target = None if label is None else torch.full_like(y, label)
    return edited_by(source.load(torch.device(device)), edit, x, y, target, seed, source.name)


def edit_to_files(
    sources: Sequence[ModelSource],
    edit: Edit,
    count: int,
    *,
    picture: Path,
    label: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    tensors: Path | None = None,
) -> dict[str, Edited]:
    """Edit the same test images with one or several networks, and write files.

    Args:
        sources: the networks; all of one data set.
        edit: what to do.
        count: how many test images.
        picture: PNG of the first images: the originals, then a row for each network.
        label: the one class to approach; images of other classes are edited then.
        seed: decides noise and random pixels.
        device: where to compute.
        tensors: safetensors file of `originals`, `starts` and `images` (N×C×H×W, float32) with
            `classes`, and `labels`, the intended ones; of the first network.

    Returns:
        What each network made of them, by name.

    Raises:
        CembenchError: as `edit_images`, when networks do not have the same test images, or when a
            file cannot be written.
    """
    found: dict[str, Edited] = {}
    for name, source in named(sources).items():
        found[name] = edit_images(source, edit, count, label=label, seed=seed, device=device)
        first = next(iter(found.values()))
        if not torch.equal(found[name].originals, first.originals):
            raise CembenchError(f"{source.file}: other test images than those of {sources[0].file}")
    write_bytes(picture, _picture(edit, found, sources[0].metadata.classes))
    if tensors is not None:
        kept = ("originals", "starts", "images", "classes", "labels")
        write_tensors(tensors, {key: getattr(first, key).contiguous() for key in kept})
    return found


def _picture(edit: Edit, found: dict[str, Edited], classes: Sequence[str]) -> bytes:
    """Return originals and a row for each network; of a single one, what else the edit shows."""
    alone = len(found) == 1
    shown = {edit.result if alone else k: v.chosen(slice(SHOWN)) for k, v in found.items()}
    first = next(iter(shown.values()))
    rows = edit.before(first) | {name: edited.images for name, edited in shown.items()}
    captions = {name: edited.reading(classes) for name, edited in shown.items()}
    captions["original"] = first.named(first.classes, classes)
    return strips(rows | (edit.after(first) if alone else {}), captions)
