"""What identifies an experiment whatever its seed or place."""

from __future__ import annotations

from typing import Any

from cembench.util.files import digest


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the place of the weights that training started from."""
    start = config.get("pretrained")
    if not isinstance(start, dict):
        return config
    return config | {"pretrained": {k: v for k, v in start.items() if k != "checkpoint"}}


def recipe_of(config: dict[str, Any]) -> str:
    """Return what identifies a resolved experiment whatever its seed; empty for none."""
    rest = {key: value for key, value in config.items() if key != "seed"}
    if rest.get("pretrained"):
        own = ("checkpoint", "weights", "gradients")  # of the one run that it started from
        rest["pretrained"] = {k: v for k, v in rest["pretrained"].items() if k not in own}
    return digest(rest) if rest else ""
