"""Identity of an experiment, without its seed and its paths."""

from __future__ import annotations

from typing import Any

from cembench.util.files import digest


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the path of the pretrained weights."""
    start = config.get("pretrained")
    if not isinstance(start, dict):
        return config
    return config | {"pretrained": {k: v for k, v in start.items() if k != "checkpoint"}}


def recipe_of(config: dict[str, Any]) -> str:
    """Return the digest of a resolved experiment without its seed; empty for an empty one."""
    rest = {key: value for key, value in config.items() if key != "seed"}
    if rest.get("pretrained"):
        own = ("checkpoint", "weights", "gradients")  # of that one run, not of its recipe
        rest["pretrained"] = {k: v for k, v in rest["pretrained"].items() if k not in own}
    return digest(rest) if rest else ""
