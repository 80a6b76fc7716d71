"""Preparing of a split: its images are decoded once, into the shards of a store on disk.

Finished shards stay whatever happens, so what was interrupted goes on when it is started again.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

from cembench.data.files.prepared import Index, Prepared
from cembench.data.files.reader import Reader
from cembench.data.split import begin_fingerprint
from cembench.util.errors import CembenchError
from cembench.util.files import CHUNK, digest, replacing
from cembench.util.files.locks import Busy, locked
from cembench.util.progress import Bar

LEVELS = 255  # that decoded images have
HEAD_START = 1.0  # seconds


def prepared_split(reader: Reader, title: str, verify: bool = False) -> tuple[Prepared, Index]:
    """Return the prepared images of a split, which are decoded first unless they were before.

    Args:
        reader: the images.
        title: the data set and the split, for people.
        verify: whether to read finished shards and compare their checksums too, rather than their
            sizes alone. Damaged ones are made again.

    Raises:
        CembenchError: naming an image that cannot be read, or when the disk is full; finished
            shards stay.
    """
    prepared = Prepared(key_of(reader))
    index = None if verify else prepared.whole()
    if index is None:
        with ExitStack() as stack:
            _take_turns(stack, prepared, title)
            index = None if verify else prepared.whole()
            index = index or _Preparation(reader, prepared, title).run()
    return prepared, index


def key_of(reader: Reader) -> str:
    """Return what identifies decoded images: files with their sizes and times, and all settings."""
    source = reader.source
    labels = hashlib.sha256(source.labels.tobytes()).hexdigest()
    format_ = Index.model_fields["format"].default
    return digest([format_, source.stamp(), asdict(reader.decoder), source.classes, labels])


def _take_turns(stack: ExitStack, prepared: Prepared, title: str) -> None:
    """Hold the lock of a folder; wait while another process prepares it."""
    first = os.environ.get("RANK", "0") == "0"
    if not first:  # of several processes the first one shows progress, so it had better be that
        time.sleep(HEAD_START)
    try:
        stack.enter_context(locked(prepared.lock, title, 0))
    except Busy:
        if first:
            print(f"cembench: {title}: another process is preparing it; waiting", file=sys.stderr)
        stack.enter_context(locked(prepared.lock, title, math.inf))


class _Preparation:
    """One pass over the images of a split.

    Attributes:
        index: of what is finished.
        sha: of everything up to the shard that is next.
    """

    def __init__(self, reader: Reader, prepared: Prepared, title: str) -> None:
        self.reader, self.prepared, source = reader, prepared, reader.source
        self.index = prepared.index() or Index.begin(title, len(reader), reader.shape)
        self.stamp = source.stamp()
        self.sha = begin_fingerprint(reader.shape, LEVELS, source.classes, source.labels)
        self.bar = Bar(f"preparing {title}", len(reader))

    def run(self) -> Index:
        """Finish all shards; return the index."""
        self._require_space()
        self.prepared.write(self.index)
        with self.bar:
            for shard in self.index.shards:
                if not self._is_finished(shard):
                    self._decode(shard)
        if self.reader.source.stamp() != self.stamp:
            raise CembenchError("files changed while they were read; start again")
        self.index = self.index.model_copy(update={"fingerprint": self.sha.hexdigest()})
        self.prepared.write(self.index)
        return self.index

    def _is_finished(self, shard: int) -> bool:
        """Add a shard to the fingerprint if it is as it was written."""
        path, known = self.prepared.shard(shard), self.index.sha256[shard]
        if not known:
            return False
        own, sha = hashlib.sha256(), self.sha.copy()
        with suppress(OSError), path.open("rb") as file:
            while part := file.read(CHUNK):
                own.update(part)
                sha.update(part)
        if own.hexdigest() != known:
            self.bar.warn(f"{path} is damaged; its images are decoded again")
            return False
        self.sha = sha
        self.bar.advance(len(self.index.rows(shard)))
        return True

    def _decode(self, shard: int) -> None:
        own = hashlib.sha256()
        with replacing(self.prepared.shard(shard)) as file:
            for images in self.reader.batches(self.index.rows(shard)):
                file.write(images.data)
                own.update(images.data)
                self.sha.update(images.data)
                self.bar.advance(len(images))
        self.index = self.index.with_shard(shard, own.hexdigest())
        self.prepared.write(self.index)

    def _require_space(self) -> None:
        index, path = self.index, self.prepared.shard
        needed = sum(index.size(s) for s in index.shards if not path(s).exists())
        free = _free(self.prepared.folder)
        if needed > free:
            raise CembenchError(
                f"{needed / 1e9:.3g} GB of decoded images do not fit into "
                f"{self.prepared.folder.parent}, where {free / 1e9:.3g} GB are free; free some "
                "space, or set XDG_CACHE_HOME to a folder on another disk"
            )


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
