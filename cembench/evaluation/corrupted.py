"""Corrupted images of a protocol: generated, or files that others made; what is missing here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import Tensor

from cembench.data.corruptions import without_extra
from cembench.data.corruptions.apply import corrupt
from cembench.data.corruptions.published import Published
from cembench.data.split import Split
from cembench.evaluation.sections.corruptions import CorruptionsConfig
from cembench.util.errors import CembenchError, ConfigError

# What a corruption is made with: one of these packages, which have the same module.
PACKAGES = {
    "frost": ["imagecorruptions"],
    "spatter": ["opencv-python", "opencv-python-headless", "opencv-contrib-python"],
}


def available(config: CorruptionsConfig, names: Sequence[str]) -> list[str]:
    """Return those of some corruptions that can be measured here."""
    missing = without_extra() if config.source == "generated" else []
    return [name for name in names if name not in missing]


def require_possible(config: CorruptionsConfig, whole: Split) -> None:
    """Refuse corruptions of images that there are none of.

    Args:
        config: the settings.
        whole: the images of the protocol's split.

    Raises:
        CembenchError: naming the key, the file or the extra.
    """
    if config.baseline == "alexnet" and len(whole.classes) != 1000:
        raise ConfigError.single(
            f"alexnet: its errors are of ImageNet's 1000 classes, not of {len(whole.classes)}",
            "corruptions.baseline",
        )
    if config.root is not None:
        Published(Path(config.root), whole.shape).require(config.asked, len(whole))
    elif whole.shape[0] not in (1, 3):
        raise CembenchError(f"corruptions: images of {whole.shape[0]} channels; 1 or 3 are wanted")
    elif not available(config, config.counted):
        raise CembenchError(
            f"corruptions: {', '.join(config.counted)} needs: pip install 'cembench[corruptions]'"
        )


def checksum(config: CorruptionsConfig, shape: tuple[int, int, int]) -> str:
    """Return what corrupted images depend on besides the protocol: files, or textures."""
    if config.root is not None:
        return Published(Path(config.root), shape).checksum(config.asked)
    return " ".join(
        _version(packages) for name, packages in PACKAGES.items() if name in config.asked
    )


def _version(packages: Sequence[str]) -> str:
    """Return the version of the first of some packages that is installed."""
    for package in packages:
        with suppress(PackageNotFoundError):
            return f"{package} {version(package)}"
    return f"no {packages[0]}"


def images_of(
    config: CorruptionsConfig, split: Split, clean: Tensor, rows: Tensor, seed: int
) -> Callable[[str, int], Tensor]:
    """Return what makes or reads the images of a corruption at a severity, bytes, N×C×H×W.

    Args:
        config: the settings.
        split: the images without corruption, N.
        clean: the same in 8 bits, N×C×H×W.
        rows: their numbers in the whole split, N.
        seed: decides the randomness of those that are generated.
    """
    if config.root is not None:
        files = Published(Path(config.root), split.shape)
        return lambda name, severity: files.batch(name, severity, rows, split.labels)
    numbers = rows.tolist()
    return lambda name, severity: corrupt(clean, name, severity, seed=seed, rows=numbers)
