"""Checkpoints that say something else than what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save

from cembench.util.files.seal import UNSEALED, seal


def rewrite(trained: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Copy the checkpoint of a run with its metadata changed, sealed anew."""
    with safe_open(trained / "model.safetensors", framework="pt") as file:
        values = json.loads(file.metadata()["cembench"])
    change(values)
    metadata = {"cembench": json.dumps(values | {"seal": UNSEALED})}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(seal(save(load_file(trained / "model.safetensors"), metadata)))
    return path
