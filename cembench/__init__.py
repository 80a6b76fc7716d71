"""cembench: how robust a network is and how well it generates, measured on one checkpoint.

`import cembench as cb`, then `cb.train`, `cb.evaluate`, `cb.sample`, `cb.load`: see `cembench.api`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cembench.api import evaluate, load, probe, rank, sample, train
    from cembench.errors import CembenchError
    from cembench.exports import export
    from cembench.foreign import import_model
    from cembench.gallery import sample_to_files
    from cembench.registry import add_plugin
    from cembench.report import write_plots, write_report
    from cembench.sweep import run_suite

# Imported when asked for: the command line answers without waiting for torch.
_PLACES = {
    **dict.fromkeys(["train", "probe", "evaluate", "sample", "load", "rank"], "cembench.api"),
    "import_model": "cembench.foreign",
    "export": "cembench.exports",
    "sample_to_files": "cembench.gallery",
    "run_suite": "cembench.sweep",
    "add_plugin": "cembench.registry",
    **dict.fromkeys(["write_report", "write_plots"], "cembench.report"),
    "CembenchError": "cembench.errors",
}

__all__ = [
    "CembenchError",
    "add_plugin",
    "evaluate",
    "export",
    "import_model",
    "load",
    "probe",
    "rank",
    "run_suite",
    "sample",
    "sample_to_files",
    "train",
    "write_plots",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'cembench' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
