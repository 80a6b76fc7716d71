"""From images to features: in batches, and for reference images only once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cembench.data.split import fixed_permutation
from cembench.data.store import Store
from cembench.evaluation.cache import ChunkCache
from cembench.evaluation.extractors import Embed, Extractor, kept
from cembench.evaluation.extractors.kept import cache_folder as cache_folder
from cembench.evaluation.metrics import functional as functional
from cembench.util.errors import CembenchError
from cembench.util.files import digest, sha256
from cembench.util.frozen import exact
from cembench.util.processes.distributed import World
from cembench.util.shared import shared
from cembench.util.stages import stage

BATCH = 128
LARGE = 2000  # images of which figures are kept on disk
VERSION = 1  # raise it when preprocessing changes, so that no cached features outlive that


@dataclass(frozen=True)
class Features:
    """What an extractor sees in N images: features N×D, and class logits N×K if it has any."""

    pool: Tensor
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def unit(self) -> Tensor:
        """The features scaled to length 1."""
        return normalize(self.pool)


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Images with what an extractor sees in them.

    Attributes:
        store: the images, which `store.batches` reads part by part.
        labels: the classes that they are of, or were to be; −1 for none.
        features: of these images.
        unit: whether neighbours are sought among features of length 1.
        device: where images are compared pair by pair.
    """

    store: Store
    labels: Tensor
    features: Features
    unit: bool
    device: torch.device = field(default=torch.device("cpu"))

    @property
    def images(self) -> Tensor:
        """All images in memory, uint8, N×C×H×W."""
        return self.store.batch(torch.arange(len(self.store)))

    @property
    def pool(self) -> Tensor:
        """The features of at most `functional.MOST` images, always the same random ones."""
        pool, most = self.features.pool, functional.MOST
        return pool if len(pool) <= most else pool[fixed_permutation(len(pool))[:most]]

    @property
    def points(self) -> Tensor:
        """The features among which neighbours are sought: `pool`, scaled to length 1 if `unit`."""
        return normalize(self.pool) if self.unit else self.pool

    @property
    def all_points(self) -> Tensor:
        """The same of all images, N×D."""
        return normalize(self.features.pool) if self.unit else self.features.pool

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Return what was made under a key before, or make it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def known(self, what: str, make: Callable[[], Tensor]) -> Tensor:
        """Return what is computed of these images alone: once, and on disk if there are many.

        Args:
            what: what it is, and everything that it depends on besides the images.
            make: computes it.
        """

        def read_or_make() -> Tensor:
            found = kept.obtain(self._name(what), lambda: {what: make().cpu()})
            return found[what].to(self.device)

        return self.once(what, make if len(self.features) < LARGE else read_or_make)

    def radii(self, k: int, kind: torch.dtype = torch.double) -> Tensor:
        """Return the distance of each point to its k-th neighbour, in float64 unless told."""

        def make() -> Tensor:
            return functional.ball_radii(self.points.to(self.device, kind), k)

        return self.known(f"radii {k} {kind}", make)

    def to_nearest(self, rows: Tensor) -> Tensor:
        """Return the distance of images to the nearest other one, in float64, on the CPU.

        Only what was never asked for is computed.

        Args:
            rows: the numbers of the images, N.
        """
        missing = rows[self._apart[rows].isnan()].unique()
        if len(missing):
            points = self.all_points.to(self.device)
            found = functional.nearest(points[missing.to(self.device)], points, 2)[0]
            self._apart[missing] = found[:, 1].cpu()
            if len(self.features) >= LARGE:
                kept.keep(self._name("nearest"), {"nearest": self._apart})
        return self._apart[rows]

    @cached_property
    def _made(self) -> dict[Hashable, Tensor]:
        return {}

    @cached_property
    def _apart(self) -> Tensor:
        """The distance to the nearest other image, N in float64; NaN where it is not known."""
        found = kept.read(self._name("nearest")) if len(self.features) >= LARGE else None
        count = len(self.features)
        return torch.full((count,), torch.nan).double() if found is None else found["nearest"]

    @cached_property
    def _content(self) -> str:
        return hash_of(self.features.pool)

    def _name(self, what: str) -> str:
        how = [VERSION, functional.MOST, self.unit, self.device.type, torch.__version__]
        return f"figures-{digest([what, self._content, *how])}"


class FeatureReader:
    """An extractor ready to use, with a cache of reference features by content.

    Attributes:
        checksum: SHA-256 of the extractor's weights.
        kept_in: where features of each batch are kept, for several processes to share.
    """

    kept_in: ChunkCache | None = None

    def __init__(
        self, extractor: Extractor, device: torch.device, weights: Path | None = None
    ) -> None:
        self.extractor = extractor
        self.device = device
        self.file = extractor.weights(weights)
        self.checksum = sha256(self.file)
        self._embed: Embed | None = None

    def read(self, images: Store) -> Features:
        """Return the features of images with one or three channels, read in batches."""
        found: dict[str, Tensor] = {}
        parts = torch.arange(len(images)).split(BATCH)
        for rows, batch in zip(parts, images.batches(parts), strict=True):
            for key, values in self._batch(batch).items():
                if key not in found:
                    found[key] = values.new_empty(len(images), *values.shape[1:])
                found[key][rows] = values
        return Features(**found)

    @contextmanager
    def keeping(self, cache: ChunkCache) -> Iterator[None]:
        """Keep the features of each batch in a cache, and take those that are there."""
        self.kept_in = cache
        try:
            yield
        finally:
            self.kept_in = None

    def share(self, images: Store, ranks: World) -> None:
        """Read this process's share of the features of real images, unless all are on disk."""
        content = self._content(images)
        if kept.read(content) is None:
            parts = torch.arange(len(images)).split(BATCH)
            for rows in ranks.deal(f"features {content}", parts):
                self._batch(images.batch(rows))

    def reference(self, images: Store) -> Features:
        """Return features of real images, kept on disk under a name made of their content."""

        def make() -> dict[str, Tensor]:
            read = vars(self.read(images)).items()
            return {key: value for key, value in read if value is not None}

        return Features(**kept.obtain(self._content(images), make))

    def _content(self, images: Store) -> str:
        how = [VERSION, self.extractor.dump(), self.checksum, self.device.type, torch.__version__]
        shape = torch.Size((len(images), *images.shape))
        return digest([*how, str(shape), hash_of_all(images)])

    def _batch(self, images: Tensor) -> dict[str, Tensor]:
        if self.kept_in is None:
            return self._embedded(images)
        name = f"features.{hash_of(images)}"
        return self.kept_in.obtain(name, lambda: self._embedded(images))

    @torch.no_grad()
    def _embedded(self, images: Tensor) -> dict[str, Tensor]:
        if self._embed is None:
            self._embed = self.extractor.build(self.file, self.device)
        channels = images.shape[1]
        if channels not in (1, 3):
            raise CembenchError(f"images of {channels} channels; an extractor wants 1 or 3")
        colour = images.expand(-1, 3, -1, -1) if channels == 1 else images
        with stage("features"), exact():
            found = self._embed(colour.to(self.device))
        pool, logits = found if isinstance(found, tuple) else (found, None)
        values = {"pool": pool} if logits is None else {"pool": pool, "logits": logits}
        return {key: value.float().cpu() for key, value in values.items()}


def shared_reader(
    extractor: Extractor, device: torch.device, weights: Path | None = None
) -> FeatureReader:
    """Return the reader of an extractor; the experiments of a suite share it."""
    return shared(
        "extractor",
        lambda: (type(extractor), digest(extractor.dump()), device, weights),
        lambda: FeatureReader(extractor, device, weights),
    )


def hash_of_all(images: Store) -> str:
    """Return the SHA-256 of the bytes of all images, which are read in batches."""
    sha = hashlib.sha256()
    for batch in images.batches(torch.arange(len(images)).split(BATCH)):
        sha.update(batch.cpu().contiguous().numpy().data)
    return sha.hexdigest()


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [0, 1] to bytes, once, real and generated alike; values outside are cut."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def hash_of(values: Tensor) -> str:
    """Return the SHA-256 of the values of a tensor."""
    return hashlib.sha256(values.cpu().contiguous().numpy().data).hexdigest()
