"""ImageNet of ILSVRC 2012, in torchvision's layout."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from cembench.data import own_name
from cembench.data.folder import Folder
from cembench.data.image_files import Side
from cembench.energy.threat import Threat
from cembench.util.errors import CembenchError, said
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Fraction, Name, optional_field

with lazy_imports():
    from cembench.data.files.source import Source

CLASSES = 1000
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


def _own_or_whole(alias: str) -> str:
    return alias if alias == ImageNet.name else own_name(alias)


class ImageNet(Folder):
    """ImageNet, 224×224 colour: `root/train/WNID/*.JPEG` and `root/val/WNID/*.JPEG`, as torchvision
    lays it out; the validation images are the test split.

    Images are scaled and cropped as torchvision and RobustBench evaluate. Class names come from
    torchvision's `meta.bin`, or from the archive of the development kit; else they are the WNIDs.

    Attributes:
        alias: the name in results, which a part of ImageNet's classes must have.
    """

    name: ClassVar[str] = "imagenet"
    alias: Annotated[Name, AfterValidator(_own_or_whole)] = "imagenet"
    mode: Literal["RGB", "L"] | None = "RGB"
    resize: Side | None = optional_field(256)
    centre_crop: Side | None = optional_field(224)
    interpolation: Literal["bicubic", "bilinear"] = optional_field("bilinear")
    flip: bool = True
    resized_crop: Fraction = optional_field(0.08)

    @property
    def threat(self) -> Threat:
        """The 4/255 of RobustBench's ImageNet board."""
        return Threat(norm="linf", eps=4 / 255)

    def source(self, root: Path, split: str) -> Source:
        """Return the images of a split."""
        source = super().source(root, split)
        if len(source.classes) != CLASSES and self.alias == self.name:
            raise CembenchError(
                f"holds {len(source.classes)} of ImageNet's 1,000 classes; give data.alias a name "
                "for this part of it"
            )
        return replace(source, classes=_named(source.classes, root))


def _named(wnids: tuple[str, ...], root: Path) -> tuple[str, ...]:
    """Return the first name of each class, and its WNID too where classes share that name."""
    names = _names(root)
    first = [names[wnid][0] if wnid in names else wnid for wnid in wnids]
    times = Counter(first)
    return tuple(
        f"{name} ({wnid})" if times[name] > 1 else name
        for name, wnid in zip(first, wnids, strict=True)
    )


def _names(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the names of each class by its WNID; none where the root does not say them."""
    from torchvision.datasets import imagenet

    try:
        if not (root / imagenet.META_FILE).exists():
            if not (root / DEVKIT).exists():
                return {}
            imagenet.parse_devkit_archive(root)  # writes the file, which needs scipy
        return dict(imagenet.load_meta_file(root)[0])
    except Exception as error:  # of an archive, or of a file that torch cannot read
        files = f"{imagenet.META_FILE} and {DEVKIT}"
        reason = f"no class names from {files}: {said(error)}"
        raise CembenchError(f"{reason}; mend them, or remove both to use the WNIDs") from error
