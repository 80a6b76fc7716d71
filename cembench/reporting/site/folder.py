"""Folder of a site: what a build writes there, what it leaves alone, and what it removes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from cembench.util.display.json_text import to_json
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, unwritable, write_bytes

MANIFEST = "site-files.txt"
HEAD = "Files that `cembench site` wrote here, and may replace or remove:\n"


class Folder:
    """The folder of a site, and the files in it that some build wrote.

    The list of these files is on disk before the first of them, so that what a killed build left is
    known to the next one. Files of others are neither replaced nor removed.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = _listed(path / MANIFEST)
        self.now: dict[str, None] = {}

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file, unless it has this content already.

        Args:
            name: path from the folder, with `/`.
            content: bytes, or a text, in which bytes of file names that are not UTF-8 are escapes.

        Raises:
            CembenchError: when it cannot be written, or the place is taken by a file of others.
        """
        path = self.path / name
        data = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
        there = path.is_file()
        if (there or path.is_symlink()) and name not in self.before | self.now:
            raise CembenchError(f"{path} is no file of a site; move it, or choose another folder")
        self._require_inside(path)
        if name not in self.before | self.now:
            self._list(name)
        self.now[name] = None
        if not there or read_bytes(path) != data:
            write_bytes(path, data, durable=False)  # the next build mends what a power cut took

    def write_json(self, name: str, values: Any) -> None:
        """Write plain values as `write` does."""
        self.write(name, f"{to_json(values)}\n")

    def close(self) -> None:
        """Remove what earlier builds wrote and this one did not, and folders empty by that."""
        for name in self.before.keys() - self.now.keys():
            path = self.path / name
            self._require_inside(path)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CembenchError(f"cannot remove {path}: {error.strerror}") from error
            _remove_empty(path.parent, self.path)
        write_bytes(self.path / MANIFEST, (HEAD + "".join(f"{n}\n" for n in self.now)).encode())

    def _list(self, name: str) -> None:
        manifest = self.path / MANIFEST
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            new = not manifest.exists()
            with manifest.open("a", encoding="ascii") as file:
                file.write(f"{HEAD if new else ''}{name}\n")
        except OSError as error:
            raise unwritable(manifest, error) from error

    def _require_inside(self, path: Path) -> None:
        """Refuse a place that a link leads out of the folder."""
        if not path.parent.resolve().is_relative_to(self.path.resolve()):
            raise CembenchError(
                f"{path} lies outside {self.path}; remove the link that leads there"
            )


def _listed(manifest: Path) -> dict[str, None]:
    """Return the files in a list of them; a list that is cut off or edited lists less."""
    if not manifest.is_file():
        return {}
    head, *names = read_bytes(manifest).decode("ascii", "replace").split("\n")
    if f"{head}\n" != HEAD:
        raise CembenchError(f"{manifest} is no list of a site; move it, or choose another folder")
    return {name: None for name in names if _plain(name)}


def _plain(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and str(path) == name and not path.is_absolute() and ".." not in path.parts


def _remove_empty(folder: Path, above: Path) -> None:
    """Remove a folder, and those around it up to another, as far as nothing is in them."""
    while folder != above and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
