"""Identity of an experiment, without its seed and its paths."""

from __future__ import annotations

from typing import Any

from cembench.util.files import digest


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return settings without the paths of checkpoints that training starts from or asks."""
    return {key: _without_path(key, value) for key, value in config.items()}


def _without_path(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_without_path(key, inner) for inner in value]
    if not isinstance(value, dict):
        return value
    known = without_paths(value)
    if key in ("pretrained", "pseudo_labels"):
        known.pop("checkpoint", None)
    return known


def recipe_of(config: dict[str, Any]) -> str:
    """Return the digest of a resolved experiment without its seed; empty for an empty one."""
    rest = {key: value for key, value in without_paths(config).items() if key != "seed"}
    if rest.get("pretrained"):
        own = ("weights", "gradients")  # of that one run, not of its recipe
        rest["pretrained"] = {k: v for k, v in rest["pretrained"].items() if k not in own}
    return digest(rest) if rest else ""
