"""Sample set: all samples of one sampler, whose images stay on disk in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cembench.data.store import Store
from cembench.samplers.draw import Samples

Read = Callable[[int], dict[str, Tensor]]


@dataclass(frozen=True)
class SampleSet:
    """Samples with their initial images, in the order in which they were drawn.

    Attributes:
        images: the samples as bytes.
        starts: the initial images of their chains as bytes.
        labels: the intended classes, N; −1 for none.
        logits: outputs of the network on the samples, N×K; N×0 for an encoder.
        start_logits: the same on the initial images.
    """

    images: Store
    starts: Store
    labels: Tensor
    logits: Tensor
    start_logits: Tensor

    @classmethod
    def of(cls, chunks: Iterable[Samples], read: Read) -> SampleSet:
        """Return the set of some chunks.

        Args:
            chunks: all chunks, one after the other; their images are not kept.
            read: returns the fields of the chunk of a number from where it is kept.
        """
        small, shape, sizes = [], torch.Size(), []
        for chunk in chunks:
            small.append((chunk.labels, chunk.logits, chunk.start_logits))
            shape = chunk.images.shape[1:]
            sizes.append(len(chunk.labels))
        last = lru_cache(maxsize=1)(read)  # consecutive batches are often of the same chunk
        images = Chunks(lambda number: last(number)["images"], sizes, shape)
        starts = Chunks(lambda number: last(number)["starts"], sizes, shape)
        return cls(images, starts, *map(torch.cat, zip(*small, strict=True)))

    @property
    def conditional(self) -> bool:
        """Whether every sample has an intended class."""
        return not bool((self.labels < 0).any())


class Chunks(Store):
    """Images in chunks, each of which is read as a whole, on the CPU.

    Args:
        read: returns the images of the chunk of a number.
        sizes: images in each chunk.
        shape: channels, height and width.
    """

    def __init__(self, read: Callable[[int], Tensor], sizes: list[int], shape: torch.Size) -> None:
        channels, height, width = shape
        self.read, self.sizes, self.shape = read, sizes, (channels, height, width)
        self.ends = torch.tensor(sizes).cumsum(0)

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.ends[-1])

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows."""
        rows = rows.cpu()
        numbers = torch.searchsorted(self.ends, rows, right=True)
        found = torch.empty(len(rows), *self.shape, dtype=torch.uint8)
        for number in numbers.unique().tolist():
            first = int(self.ends[number]) - self.sizes[number]
            found[numbers == number] = self.read(number)[rows[numbers == number] - first]
        return found.to(self.device)

    def to(self, device: torch.device) -> Store:
        """Return the same images with their batches on a device."""
        moved = Chunks(self.read, self.sizes, torch.Size(self.shape))
        moved.device = device
        return moved
