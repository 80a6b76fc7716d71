"""File store: an object store or file system that fsspec reaches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from cembench.interop.hub.address import Address
from cembench.interop.hub.fetch import transfer
from cembench.interop.hub.manifest import MANIFEST, Manifest
from cembench.interop.hub.store import Store, reaching
from cembench.util.errors import CembenchError, one_line
from cembench.util.extras import require_package
from cembench.util.files import CHUNK, unwritable


class FileStore(Store):
    """Files that fsspec reaches. A run is written once, and its manifest after all others."""

    def __init__(self, address: Address) -> None:
        require_package("fsspec", "fsspec")
        from fsspec import available_protocols
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations as known

        self.address, self.file = address, ""
        if address.scheme not in available_protocols():
            raise CembenchError(f"{address}: fsspec knows no {address.scheme}://")
        with reaching(address):
            try:
                self.files, root = url_to_fs(address.url)
            except ImportError as error:
                package = known[address.scheme]["class"].partition(".")[0]
                hint = f"pip install {package}" if package != "fsspec" else one_line(error)
                what = f"{address}: needs a package that is missing: {hint}"
                raise CembenchError(what) from error
            self.root = root.rstrip("/")
            self.files.invalidate_cache()
            self._find_run()

    def _find_run(self) -> None:
        """Find the run that the address names a file of, or a single file."""
        given = self.root
        for _ in range(3):
            if self.size(MANIFEST) is not None or "/" not in self.root.strip("/"):
                break
            self.root, _, name = self.root.rpartition("/")
            self.file = f"{name}/{self.file}".rstrip("/")
        if self.size(MANIFEST) is None:
            self.root, self.file = given, ""
            if self.files.isfile(given):
                self.root, _, self.file = given.rpartition("/")

    @property
    def place(self) -> str:
        """The folder of the run."""
        return self.root

    def size(self, file: str) -> int | None:
        """Return the bytes of a file; None where there is none."""
        try:
            found = self.files.info(self._path(file))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return int(found["size"] or 0) if found["type"] == "file" else None

    def open(self, file: str) -> BinaryIO:
        """Open a file for reading."""
        opened: BinaryIO = self.files.open(self._path(file), "rb")
        return opened

    def version(self, file: str) -> str:
        """Return what the store knows of a file, such as its time or its ETag."""
        return str(self.files.ukey(self._path(file)))

    def write(self, files: Mapping[str, Path | bytes], manifest: Manifest, **options: Any) -> str:
        """Write a run where nothing is; with `force` in place of what was pushed before.

        Files that are not of the earlier run stay.
        """
        if self.file:
            raise CembenchError(f"{self.address}: inside a run, or a file; choose another address")
        with reaching(self.address):
            self._require_free(bool(options.get("force")))
            try:
                self._write(files, manifest)
            except OSError as error:
                if not error.strerror:  # of a store that is no file system
                    raise
                raise unwritable(self.address, error) from error
        return str(self.address)

    def _write(self, files: Mapping[str, Path | bytes], manifest: Manifest) -> None:
        before = self._begin_again()
        total = sum(entry.bytes for entry in manifest.files.values())
        with transfer(self, "pushing", total) as advance:
            for name, content in files.items():
                self._put(name, content)
                advance(manifest.files[name].bytes)
        for name in before - {*files}:
            with suppress(FileNotFoundError):
                self.files.rm_file(self._path(name))
        self._put(MANIFEST, manifest.text())

    def _require_free(self, force: bool) -> None:
        if force or not self.files.exists(self.root):
            return
        if self.size(MANIFEST) is not None:
            raise CembenchError(f"{self.address}: a run is here already; --force replaces it")
        if self.files.isfile(self.root) or self.files.ls(self.root):
            raise CembenchError(
                f"{self.address}: not empty, and no run, or a push that was stopped; --force "
                "writes a run here, and leaves files of other names alone"
            )

    def _begin_again(self) -> set[str]:
        """Remove the manifest of an earlier run, so that a mixture is none; return its files."""
        found: set[str] = set()
        with suppress(CembenchError):  # a damaged one
            known = self.manifest()
            found = set() if known is None else {*known[0].files}
        if self.size(MANIFEST) is not None:
            self.files.rm_file(self._path(MANIFEST))
        return found

    def _put(self, name: str, content: Path | bytes) -> None:
        with self._writing(self._path(name)) as target:
            if isinstance(content, bytes):
                target.write(content)
                return
            with content.open("rb") as source:
                while part := source.read(CHUNK):
                    target.write(part)

    def _writing(self, path: str) -> BinaryIO:
        """Open a file for writing; only stores that have folders miss that of the file."""
        opened: BinaryIO
        try:
            opened = self.files.open(path, "wb")
        except FileNotFoundError:
            self.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            opened = self.files.open(path, "wb")
        return opened

    def _path(self, file: str) -> str:
        return f"{self.root}/{file}"
