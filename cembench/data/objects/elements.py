"""Elements of objects that hold images: batches of images and labels, whatever the object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from cembench.util.errors import CembenchError

BATCH = 256
IMAGE_KEYS = ("image", "img", "images", "pixel_values")
LABEL_KEYS = ("label", "labels", "fine_label", "target")
KINDS = (
    "a pair (images, labels), a data set of (image, label), a loader, or a Hugging Face data set"
)


def elements(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield batches of an object: images, an array or a list of N, and their N labels, in order.

    Raises:
        CembenchError: for an object of another kind.
    """
    if is_pair(data):
        images, labels = data
        if len(images) != len(labels):
            raise CembenchError(f"{len(images)} images and {len(labels)} labels")
        for start in range(0, len(images), BATCH):
            yield images[start : start + BATCH], labels[start : start + BATCH]
        return
    pairs = map(_pair, _iterated(data))
    if (first := next(pairs, None)) is None:
        return
    every = chain([first], pairs)
    if getattr(first[1], "ndim", 0) or isinstance(first[1], list | tuple):
        yield from every
    while group := list(islice(every, BATCH)):
        images, labels = zip(*group, strict=True)
        yield list(images), list(labels)


def is_pair(data: Any) -> bool:
    """Return whether an object is a pair of arrays."""
    pair = isinstance(data, tuple | list) and len(data) == 2
    return pair and getattr(data[0], "ndim", 0) > 2 and hasattr(data[1], "__len__")


def class_names(data: Any) -> tuple[str, ...]:
    """Return the names of the classes that an object, or what it was made of, says, if any."""
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):
        return tuple(getattr(features.get(_key(features, LABEL_KEYS)), "names", None) or ())
    names = getattr(data, "classes", None)
    if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
        return tuple(names)
    inner = getattr(data, "dataset", None)
    return () if inner is None else class_names(inner)


def _iterated(data: Any) -> Iterator[Any]:
    """Return the elements of an object in its order: single ones, or batches."""
    if isinstance(data, DataLoader):
        return iter(_ordered(data))
    if isinstance(data, Mapping):
        listed = ", ".join(map(str, data))
        raise CembenchError(f"several splits ({listed}); give one of them, such as data['test']")
    if isinstance(data, Iterable):
        return iter(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[row] for row in range(len(data)))
    raise CembenchError(f"an object of type {type(data).__name__} holds no images; give {KINDS}")


def _ordered(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader that reads all images in the order of their data set.

    What a loader leaves out at its end, and how it shuffles, is for training. A sampler that
    chooses images is followed.
    """
    sampler, size = loader.sampler, loader.batch_size
    shuffles = isinstance(sampler, RandomSampler) and not sampler.replacement
    if size is None or not (shuffles or isinstance(sampler, SequentialSampler)):
        return loader
    return DataLoader(
        loader.dataset, size, collate_fn=loader.collate_fn, num_workers=loader.num_workers
    )


def _pair(element: Any) -> tuple[Any, Any]:
    """Return image and label of an element."""
    if isinstance(element, Mapping):
        return element[_key(element, IMAGE_KEYS)], element[_key(element, LABEL_KEYS)]
    if isinstance(element, tuple | list) and len(element) == 2:
        return element[0], element[1]
    kind = type(element).__name__
    if isinstance(element, tuple | list):
        kind = f"{kind} of {len(element)}"
    elif isinstance(element, Tensor):
        kind = "tensor without a label"
    raise CembenchError(f"its elements are no pairs of image and label, but a {kind}; give {KINDS}")


def _key(columns: Mapping[str, Any], known: tuple[str, ...]) -> str:
    """Return the name of a column.

    Raises:
        CembenchError: when it has none of the known ones.
    """
    found = [key for key in known if key in columns]
    if not found:
        raise CembenchError(
            f"its columns are {', '.join(map(str, columns))}; rename one to '{known[0]}'"
        )
    return found[0]
