"""Weights of other programs: read without running code, and loaded into a network by name."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable

from torch import Tensor, nn

from cembench.util.errors import CembenchError

MAX_LISTED = 3


def load_weights(net: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load all parameters and buffers of a network by name.

    Names may differ by a prefix such as `module.` or `model.`.

    Raises:
        CembenchError: naming `source`, for weights that are missing or unexpected (each named with
            the nearest match), have another shape, or are not finite.
    """
    wanted = net.state_dict()
    given = _renamed(weights, wanted)
    if missing := [key for key in wanted if key not in given and not _counter(key)]:
        raise CembenchError(f"{source}: misses {_listed(missing, given)}")
    if unexpected := [key for key in given if key not in wanted and not _counter(key)]:
        raise CembenchError(f"{source}: holds {_listed(unexpected, wanted)} that it has no use for")
    for key, value in wanted.items():
        theirs = given.get(key, value)
        if theirs.shape != value.shape:
            shapes = f"{tuple(theirs.shape)}, and the network wants {tuple(value.shape)}"
            raise CembenchError(f"{source}: {key} is {shapes}; is it another architecture?")
        if theirs.is_floating_point() and not bool(theirs.isfinite().all()):
            raise CembenchError(f"{source}: {key} is not finite")
    net.load_state_dict({key: given.get(key, value) for key, value in wanted.items()})


def _counter(key: str) -> bool:
    """Return whether a buffer counts batches: some files lack them, and evaluation has no use."""
    return key.endswith("num_batches_tracked")


def _renamed(weights: dict[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Return weights without the prefix of their own names, or with that of the network's names."""
    theirs, ours = _prefix(weights, wanted), _prefix(wanted, weights)
    if ours[1] > theirs[1]:
        return {ours[0] + key: value for key, value in weights.items()}
    return {key.removeprefix(theirs[0]): value for key, value in weights.items()}


def _prefix(names: Iterable[str], others: Iterable[str]) -> tuple[str, int]:
    """Return the prefix that most names have which others lack, and the number of those names."""
    known, found = set(others), Counter[str]()
    for key in names:
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in known:
                found["".join(f"{part}." for part in parts[:cut])] += 1
    best = min(found, key=lambda prefix: (-found[prefix], len(prefix)), default="")
    return best, found[best]


def _listed(keys: list[str], others: Iterable[str]) -> str:
    """Write some keys, each with the nearest of the others."""
    others, words = list(others), []
    for key in keys[:MAX_LISTED]:
        near = difflib.get_close_matches(key, others, n=1, cutoff=0.3)
        words.append(f"{key} (nearest: {near[0]})" if near else key)
    more = len(keys) - MAX_LISTED
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")
