"""Software: Python, cembench, the packages that it needs, extras and plugins."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path

from cembench.doctor.finding import Finding
from cembench.util.version import __version__

OLDEST = (3, 11)
PURPOSES = {
    "attacks": "attacks of torchattacks and foolbox",
    "corruptions": "corruptions of the ImageNet-C code",
    "dinov2": "the extractor dinov2",
    "hub": "push, pull and hf://",
    "lite2": "the extractor lite2",
    "mlflow": "a tracker",
    "onnx": "export to ONNX",
    "ray": "suites on Ray",
    "slurm": "suites on SLURM",
    "tensorboard": "a tracker",
    "wandb": "a tracker",
}
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)[^;]*(?:;.*extra == ['\"](?P<extra>[\w-]+)['\"])?")


def python() -> Iterator[Finding]:
    """Tell the versions of Python and cembench, and whether text can be printed."""
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    text += f", cembench {__version__}"
    if sys.version_info < OLDEST:
        yield Finding("software", "problem", text, f"use Python {'.'.join(map(str, OLDEST))}")
    else:
        yield Finding("software", "ok", text)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        what = f"stdout takes {encoding or 'no'} text, and tables have other signs"
        yield Finding("software", "note", what, "set PYTHONUTF8=1, or a locale with UTF-8")


def packages() -> Iterator[Finding]:
    """Tell which of the packages that cembench needs are installed."""
    needed = _requirements()
    if needed is None:
        text = "cembench is on the path but not installed: its packages are not known"
        yield Finding("software", "note", text, "pip install -e . in its folder")
        return
    wrong = [*_unfit("cembench"), *_unfit("torchvision")]
    yield from wrong
    if not wrong:
        yield Finding("software", "ok", f"{len(needed[''])} packages that it needs are installed")


def _unfit(package: str) -> Iterator[Finding]:
    """Tell which packages that one needs are missing, or of a version that it does not take."""
    from packaging.requirements import Requirement

    for line in requires(package) or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = _version(wanted.name)
        text = f"{wanted.name} {found or 'is not installed'}"
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            text += f", and {package} takes {wanted.specifier}" if found else ""
            yield Finding(
                "software", "problem", text, f"pip install '{wanted.name}{wanted.specifier}'"
            )


def extras() -> Iterator[Finding]:
    """Tell which extras are installed, and what the others are for."""
    known = _requirements() or {}
    names = [name for name in known if name in PURPOSES]
    here = [name for name in names if all(map(_version, known[name]))]
    told = [
        f"{name} ({', '.join(f'{one} {_version(one)}' for one in known[name])})" for name in here
    ]
    if told:
        yield Finding("extras", "ok", f"installed: {', '.join(told)}")
    if missing := [f"{name} ({PURPOSES[name]})" for name in names if name not in here]:
        remedy = "pip install 'cembench[NAME]' where you need one"
        yield Finding("extras", "ok", f"not installed: {', '.join(missing)}", remedy)


def plugins(named: tuple[str, ...]) -> Iterator[Finding]:
    """Tell which plugins there are; none is imported.

    Args:
        named: modules of `--plugin` and `CEMBENCH_PLUGINS`.
    """
    for entry in entry_points(group="cembench.plugins"):
        yield Finding("plugins", "ok", f"{entry.name} of the installed package {entry.module}")
    for module in named:
        top = module.partition(".")[0]
        if PathFinder.find_spec(top, [*sys.path, str(Path.cwd())]) is None:
            text = f"{module} cannot be found, and every command imports it"
            yield Finding("plugins", "problem", text, "correct CEMBENCH_PLUGINS or PYTHONPATH")
        else:
            yield Finding("plugins", "ok", f"{module}, not imported here")


def _requirements() -> dict[str, list[str]] | None:
    """Return the packages that cembench needs, by extra; None where it is not installed."""
    try:
        lines = requires("cembench") or []
    except PackageNotFoundError:
        return None
    found: dict[str, list[str]] = {"": []}
    for line in lines:
        if (match := REQUIREMENT.match(line)) and match["name"] != "cembench":
            found.setdefault(match["extra"] or "", []).append(match["name"])
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
