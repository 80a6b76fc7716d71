"""Class folders of images, as torchvision's ImageFolder wants them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from cembench.data.image_files import LocalData
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.data.source import FileSource, Source


class Folder(LocalData):
    """`root/train/CLASS/*.png` and `root/test/CLASS/*.png`, as torchvision's ImageFolder wants."""

    name: ClassVar[str] = "folder"

    def source(self, root: Path, split: str) -> Source:
        """Return the images of a split."""
        from torchvision.datasets import ImageFolder

        classes = tuple(sorted(p.name for p in (root / "train").glob("*") if p.is_dir()))
        try:
            found = ImageFolder(root / split)
        except FileNotFoundError as error:
            raise CembenchError(str(error).splitlines()[0]) from error
        if unknown := set(found.classes) - set(classes):
            raise CembenchError(f"class '{sorted(unknown)[0]}' is not among the training classes")
        label = {index: classes.index(name) for name, index in found.class_to_idx.items()}
        labels = [label[index] for index in found.targets]
        return FileSource(labels, classes, [path for path, _ in found.samples])
