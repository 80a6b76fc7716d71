"""cembench: how robust a network is and how well it generates, measured on one checkpoint.

`import cembench as cb`, then `cb.train`, `cb.evaluate`, `cb.sample`, `cb.load`: see `cembench.api`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cembench.util.version import __version__ as __version__

if TYPE_CHECKING:
    from cembench.api import (
        check,
        compare,
        counterfactuals,
        dataset,
        evaluate,
        leaderboard,
        load,
        plot,
        probe,
        records,
        report,
        restore,
        run_suite,
        sample,
        train,
        verify,
    )
    from cembench.data.corruptions.apply import corrupt
    from cembench.interop.exporting import export
    from cembench.interop.hub.pull import pull
    from cembench.interop.hub.push import push
    from cembench.interop.importing import import_model
    from cembench.samplers.to_files import sample_to_files
    from cembench.util.errors import CembenchError
    from cembench.util.registry import add_plugin

# Imported when asked for: the command line answers without waiting for torch.
_PLACES = {
    **dict.fromkeys(["train", "probe", "run_suite", "evaluate", "sample", "load"], "cembench.api"),
    **dict.fromkeys(["counterfactuals", "restore", "dataset"], "cembench.api"),
    **dict.fromkeys(["check", "compare", "verify"], "cembench.api"),
    **dict.fromkeys(["leaderboard", "records", "report", "plot"], "cembench.api"),
    "corrupt": "cembench.data.corruptions.apply",
    "import_model": "cembench.interop.importing",
    "export": "cembench.interop.exporting",
    "push": "cembench.interop.hub.push",
    "pull": "cembench.interop.hub.pull",
    "sample_to_files": "cembench.samplers.to_files",
    "add_plugin": "cembench.util.registry",
    "CembenchError": "cembench.util.errors",
}

__all__ = [
    "CembenchError",
    "add_plugin",
    "check",
    "compare",
    "corrupt",
    "counterfactuals",
    "dataset",
    "evaluate",
    "export",
    "import_model",
    "leaderboard",
    "load",
    "plot",
    "probe",
    "pull",
    "push",
    "records",
    "report",
    "restore",
    "run_suite",
    "sample",
    "sample_to_files",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'cembench' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
