"""Address of a run or file elsewhere: `hf://USER/NAME@REVISION/FILE`, `s3://BUCKET/FOLDER`, …."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from cembench.util.errors import CembenchError
from cembench.util.files.fetched import without_password

HUGGING_FACE = "hf"
FORM = "hf://USER/NAME, hf://USER/NAME@REVISION or hf://USER/NAME@REVISION/FILE"
# One letter before the colon is a drive of Windows. A `Path` keeps one slash of the two.
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)(.*)", re.DOTALL)
_HUB = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([^/]+))?(?:/(.+))?", re.ASCII)
_OTHERS = ("datasets", "spaces", "kernels", "buckets")  # that the hub has beside models


@dataclass(frozen=True)
class Address:
    """Where a run, or a file of it, lies.

    Attributes:
        url: the address as it was given.
        scheme: `hf`, or a protocol of fsspec.
        place: `USER/NAME`, or what follows the scheme.
        revision: branch, tag or commit on the Hugging Face hub; the default branch if empty.
        file: file in the repository on the hub; the run itself if empty.
    """

    url: str
    scheme: str
    place: str
    revision: str = ""
    file: str = ""

    def __str__(self) -> str:
        return without_password(self.url)


def is_address(value: object) -> bool:
    """Return whether a text, or the path that was made of one, is an address."""
    return isinstance(value, str | Path) and _found(value) is not None


def address_of(value: str | Path) -> Address:
    """Return the address that a text is.

    Raises:
        CembenchError: when it is none, or a wrong one.
    """
    found = _found(value)
    if found is None:
        raise CembenchError(f"{value}: no address; give {FORM}, or s3://, gs://, file://, …")
    url, scheme, rest = found
    if not rest.strip("/"):
        raise CembenchError(f"{without_password(url)}: names no run")
    if scheme != HUGGING_FACE:
        return Address(url, scheme, rest.rstrip("/"))
    match = _HUB.fullmatch(rest.rstrip("/"))
    if match is None or match[1].partition("/")[0] in _OTHERS:
        raise CembenchError(f"{url}: give {FORM}, of a model repository")
    file = match[3] or ""
    if {"", ".", ".."} & {*file.split("/")} and file:
        raise CembenchError(f"{url}: {file} is no file of a repository")
    return Address(url, scheme, match[1], unquote(match[2] or ""), file)


def local_folder(value: str | Path) -> Path:
    """Return the path of a folder to write to.

    Raises:
        CembenchError: for an address: what is not finished needs a file system with locks.
    """
    if is_address(value):
        raise CembenchError(elsewhere(value))
    return Path(value)


def elsewhere(value: object) -> str:
    """Return what to say where an address cannot stand."""
    return (
        f"{without_password(str(value))}: here only files and folders of this machine; "
        "`cembench push` takes finished runs elsewhere, and `cembench pull` brings them back"
    )


def _found(value: str | Path) -> tuple[str, str, str] | None:
    """Return an address as it was given, its scheme and the rest."""
    if isinstance(value, Path):
        match = _PATH.fullmatch(str(value))
        slash = "/" if match is not None and match[1].lower() == "file" else ""
        return None if match is None else _found(f"{match[1]}://{slash}{match[2]}")
    match = _ADDRESS.fullmatch(value)
    return None if match is None else (value, match["scheme"].lower(), match["rest"])
