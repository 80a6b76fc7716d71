"""Store of encoded images: each is decoded whenever it is asked for."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from multiprocessing import active_children, current_process
from multiprocessing.process import BaseProcess
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cembench.data.files.reader import Reader, content_of
from cembench.data.store import Store
from cembench.util.devices import share_of_cores
from cembench.util.errors import CembenchError
from cembench.util.stopping import ENDINGS, held_signals, kept_handlers, release_signals

MOST_WORKERS = 8  # unless the settings say more
CHILD = [signal.SIGCHLD] if hasattr(signal, "SIGCHLD") else []  # not on Windows
GRACE = 30  # seconds in which a parent that was asked to stop may still want images


class EncodedStore(Store):
    """Images that are decoded on the fly.

    `batch` decodes in threads. `batches` reads ahead, in processes of a DataLoader: threads hold
    each other up where there are many. Both return the same bytes, for any number of workers.
    """

    def __init__(
        self, reader: Reader, workers: int | None = None, device: torch.device | None = None
    ) -> None:
        self.reader, self.shape = reader, reader.shape
        self.device = device or Store.device
        self.workers = min(MOST_WORKERS, share_of_cores()) if workers is None else workers
        if current_process().daemon:  # which may start no processes
            self.workers = 0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.reader)

    def batch(self, rows: Tensor) -> Tensor:
        """Return the images of some rows."""
        with ThreadPoolExecutor(share_of_cores()) as threads:
            return _decoded(self.reader, rows, threads.map).to(self.device)

    def batches(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Return the images of one batch of rows after the other, read ahead by the workers."""
        if self.workers == 0:
            yield from map(self.batch, parts)
            return
        for images in _ahead(self.reader, self.workers, parts, self.device.type == "cuda"):
            if isinstance(images, CembenchError):
                raise images
            yield images.to(self.device, non_blocking=True)

    def to(self, device: torch.device) -> EncodedStore:
        """Return the store with its batches on a device."""
        return EncodedStore(self.reader, self.workers, device)


class _Batches(Dataset[Tensor | CembenchError]):
    """Batches by their rows, in a worker; errors are values: raised there, they get a traceback."""

    def __init__(self, reader: Reader) -> None:
        self.reader = Reader(copy(reader.source), reader.decoder)  # which shares no open file

    def __getitem__(self, rows: list[int]) -> Tensor | CembenchError:
        try:
            return _decoded(self.reader, torch.tensor(rows))
        except CembenchError as error:
            return error


def _decoded(
    reader: Reader, rows: Tensor, each: Callable[..., Iterable[np.ndarray]] = map
) -> Tensor:
    """Return images; files are read in the order of rows, which suits disks and parquet files."""
    rising, places = rows.sort()
    numbers = rising.tolist()
    images = np.empty((len(rows), *reader.shape), np.uint8)
    contents = (content_of(reader.source, row) for row in numbers)
    for place, image in zip(places.tolist(), each(reader.decode, contents, numbers), strict=True):
        images[place] = image
    return torch.from_numpy(images)


_workers: WeakSet[BaseProcess] = WeakSet()


@atexit.register
def _end_workers() -> None:
    """End workers whose batches nobody has read to the end; Python would wait for them."""
    for worker in list(_workers):
        worker.kill()


def _ahead(
    reader: Reader, workers: int, parts: Iterable[Tensor], pinned: bool
) -> Iterator[Tensor | CembenchError]:
    """Yield what workers make of each part, in order.

    Raises:
        CembenchError: when a worker was killed.
    """
    loader = DataLoader(
        _Batches(reader),
        batch_size=None,  # the sampler gives the rows of whole batches
        sampler=(rows.tolist() for rows in parts),  # tensors would be sent as files
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # the global one stays where it is
    )
    with held_signals(), kept_handlers(CHILD):  # torch's would raise wherever the parent is
        others = active_children()
        batches = iter(loader)
        _workers.update(set(active_children()).difference(others))
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:  # OSError, where it was sending something
        if isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error):
            raise
        raise CembenchError(
            "a process that decodes images was killed, maybe for want of memory (in a container, "
            "of shared memory); set data.workers to less, or to 0 to have none"
        ) from error


def _leave_signals_to_parent(_: int) -> None:
    """Let a worker end with its parent, not with signals that all processes get.

    SIGTERM ends it a while later, since it is also what the parent would end it with at last.
    """
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    release_signals()
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
