"""Hugging Face hub: a run is a model repository, and a push is one commit."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.utils import disable_progress_bars

from cembench.interop.hub.address import Address
from cembench.interop.hub.manifest import MANIFEST, Manifest
from cembench.interop.hub.refusals import Unreachable, telling
from cembench.interop.hub.store import Store
from cembench.util.errors import CembenchError
from cembench.util.verbosity import is_quiet
from cembench.util.version import __version__

OWN = {".gitattributes"}  # what the hub puts into a new repository
_COMMIT = re.compile("[0-9a-f]{40}")


class HubStore(Store):
    """A model repository at a revision. What was read before is read from the hub's own cache."""

    shows_progress: ClassVar[bool] = True

    def __init__(self, address: Address) -> None:
        self.address, self.file = address, address.file
        if is_quiet() or not sys.stderr.isatty():
            disable_progress_bars()
        self.api = HfApi(library_name="cembench", library_version=__version__)
        self.revision = address.revision or "main"
        self._commit = ""
        self._sizes: dict[str, int] | None = None
        self._unreachable = ""
        self._told = False

    @property
    def place(self) -> str:
        """The name of the repository, after that of its owner."""
        return self.address.place

    def _listed(self) -> dict[str, int] | None:
        """Return the sizes of all files; None where the hub cannot be reached, but its cache."""
        if self._sizes is None and not self._unreachable:
            try:
                with telling(self.address):
                    found = self.api.model_info(
                        self.address.place, revision=self.revision, files_metadata=True
                    )
            except Unreachable as error:
                self._unreachable = str(error)
                return None
            self._commit = found.sha or ""
            self._sizes = {one.rfilename: one.size or 0 for one in found.siblings or []}
        return self._sizes

    def size(self, file: str) -> int | None:
        """Return the bytes of a file; None where there is none."""
        if (sizes := self._listed()) is not None:
            return sizes.get(file)
        cached = self._cached(file)
        return None if cached is None else cached.stat().st_size

    def _cached(self, file: str) -> Path | None:
        found = try_to_load_from_cache(self.address.place, file, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def open(self, file: str) -> BinaryIO:
        """Open a file for reading, after fetching it into the cache of the hub."""
        if self._listed() is None:
            if (cached := self._cached(file)) is None:
                raise self.missing(file)
            if not self._told:
                self._told = True
                print(f"cembench: {self._unreachable}; reading its cache", file=sys.stderr)
            return cached.open("rb")
        with telling(self.address):
            path = Path(
                hf_hub_download(
                    self.address.place,
                    file,
                    revision=self.revision,
                    library_name="cembench",
                    library_version=__version__,
                )
            )
            # The first file was read by the name of a branch, which the cache keeps for a time
            # without network. What follows is of the same commit.
            self.revision = self._commit = path.parents[file.count("/")].name
            return path.open("rb")

    def version(self, file: str) -> str:
        """Return the commit."""
        if self._listed() is None and (cached := self._cached(file)) is not None:
            return cached.parents[file.count("/")].name
        return self._commit

    def missing(self, file: str) -> CembenchError:
        """Return what to say when a file is not there."""
        if self._listed() is None:
            return CembenchError(f"{self._unreachable}; {file} is not in its cache")
        return super().missing(file)

    def write(self, files: Mapping[str, Path | bytes], manifest: Manifest, **options: Any) -> str:
        """Write a run as one commit, and return its address with the id of that commit.

        The repository, and the branch that the address names, are made where they are missing.
        What an earlier run had and this one lacks is deleted, in the same commit.
        """
        place, branch = self.address.place, self.address.revision
        if self.file:
            raise CembenchError(f"{self.address}: names a file; push takes hf://USER/NAME[@BRANCH]")
        if _COMMIT.fullmatch(branch):
            raise CembenchError(f"{self.address}: a commit cannot change; name a branch, or none")
        with telling(self.address), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tables in a model repository
            self.api.create_repo(place, private=options.get("private") or None, exist_ok=True)
            if branch:
                self.api.create_branch(place, branch=branch, exist_ok=True)
            self._sizes = None
            there = {*(self._listed() or {})}
            if self._unreachable:
                raise Unreachable(self._unreachable)
            stale = self._stale(there, {*files}, bool(options.get("force")))
            adds = [
                CommitOperationAdd(name, str(content) if isinstance(content, Path) else content)
                for name, content in {**files, MANIFEST: manifest.text()}.items()
            ]
            commit = self.api.create_commit(
                place,
                [*adds, *(CommitOperationDelete(name) for name in sorted(stale))],
                commit_message=f"Push {manifest.name} with cembench {__version__}",
                revision=branch or None,
                parent_commit=self._commit,
            )
        return f"hf://{place}@{commit.oid}"

    def _stale(self, there: set[str], files: set[str], force: bool) -> set[str]:
        """Return files of an earlier run that the new one lacks.

        Raises:
            CembenchError: when the repository holds something else, unless it may be replaced.
        """
        if MANIFEST in there:
            known = None
            with suppress(CembenchError):  # a damaged one, which the new one replaces
                known = self.manifest()
            return set() if known is None else ({*known[0].files} & there) - files
        if there - OWN and not force:
            raise CembenchError(
                f"{self.address}: holds no run, but {len(there - OWN)} other files; choose another "
                "name, or --force to replace those of the same names"
            )
        return set()
