"""Storing a suite beside its runs, as a queue."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cembench.evaluation.protocol import Protocol
from cembench.suites.queue import DONE, Plan, Queue, kinds_in, place_of
from cembench.training.config import Experiment
from cembench.util.files import digest, unwritable
from cembench.util.files.seal import UNSEALED, write_sealed
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from cembench.util.provenance import code_version


def store(
    out: Path,
    name: str,
    experiments: Mapping[str, Experiment],
    protocol: Protocol,
    needs: Mapping[str, Collection[str]],
    device: str,
    inception_weights: Path | None,
    plugins: Collection[str],
    max_failures: int | None,
) -> Queue:
    """Store a suite and return its queue.

    What is done of the same settings stays done; what failed, or lost its results, is done again.

    Raises:
        CembenchError: when it cannot be written.
    """
    values = {one: _values(experiment) for one, experiment in experiments.items()}
    weights = None if inception_weights is None else str(inception_weights)
    identity = [values, protocol.dump(), device, weights, code_version()["source"]]
    plan = Plan(
        session=secrets.token_hex(8),
        round=digest(identity),
        place=str(Path.cwd()),
        protocol=protocol.dump(),
        experiments=values,
        needs={one: sorted(before) for one, before in needs.items() if before},
        device=device,
        inception_weights=weights,
        plugins=list(plugins),
        max_failures=max_failures,
    )
    queue = Queue(out, name, plan)
    place = place_of(out, name)
    try:
        queue.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(queue.folder, error) from error
    _begin(queue, experiments)
    write_sealed(place / "suite.json", json.dumps({"seal": UNSEALED, **plan.dump()}).encode())
    for other in place.iterdir():
        if other.is_dir() and other != queue.folder:
            shutil.rmtree(other, ignore_errors=True)
    return queue


def _begin(queue: Queue, experiments: Mapping[str, Experiment]) -> None:
    """Forget failures, and that something is done whose results were removed since."""
    for name, kind in kinds_in(queue.folder):
        if kind == DONE and name in experiments:
            layout = queue.layout(name)
            measured = queue.protocol.measured_of(experiments[name].method.kind) is not None
            result = layout.record(queue.protocol.name) if measured else layout.checkpoint
            kept = result.exists()
        else:
            kept = kind.isdigit()
        if not kept:
            (queue.folder / ".".join(filter(None, (name, kind)))).unlink(missing_ok=True)


def _values(experiment: Experiment) -> dict[str, Any]:
    """Return all settings as plain values, also those that are no part of its identity."""
    trackers = [tracker.dump() for tracker in experiment.tracker]
    more = {
        "tracker": trackers,
        "save_every": experiment.save_every,
        "processes": experiment.processes,
    }
    return experiment.dump() | {key: value for key, value in more.items() if value}
