"""Data: which data sets are on this machine; nothing is downloaded, read or decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cembench.doctor.finding import Finding
from cembench.util.files.layout import user_cache

DOWNLOADS = Path("~/.cache/cembench/data")
FILES = {  # below torchvision's root
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "svhn": "train_32x32.mat",
}


def data_sets() -> Iterator[Finding]:
    """Tell which of the registered data sets are here."""
    from cembench.data import datasets

    root = DOWNLOADS.expanduser()
    known = [name for name in datasets.known() if name in FILES]
    here = [name for name in known if _holds(root / FILES[name])]
    if found := ["digits", *(f"{name} in {root / FILES[name]}" for name in here)]:
        yield Finding("data", "ok", f"here: {', '.join(found)}")
    if left := [name for name in known if name not in here]:
        remedy = "downloaded at first use; offline, set data.root to a folder that has them"
        yield Finding("data", "ok", f"not in {root}: {', '.join(left)}", remedy)
    rooted = [n for n in datasets.known() if "root" in datasets.find(n).model_fields]
    others = [name for name in rooted if name not in FILES]
    yield Finding("data", "ok", f"with data.root=FOLDER: {', '.join(others)}")
    yield from _named()


def _holds(path: Path) -> bool:
    """Return whether there is a file, or a folder that is not empty."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _named() -> Iterator[Finding]:
    """Tell which folders of data the user named before are still there."""
    try:
        folders = (user_cache() / "data-roots").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return
    gone = [folder for folder in folders if not Path(folder).exists()]
    text = f"folders that you named before: {len(folders)}, gone: {len(gone)}"
    yield Finding("data", "ok", text)
    if gone:
        told = f"{', '.join(gone[:5])}{' …' if len(gone) > 5 else ''}"
        remedy = "runs with these data need --data-root NEW-FOLDER"
        yield Finding("data", "note", f"gone: {told}", remedy)
