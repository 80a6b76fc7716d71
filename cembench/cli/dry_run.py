"""`--dry-run`: what a command will cost, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cembench.cli.base import fail, say
from cembench.util.display.format import byte_size
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from cembench.evaluation.protocol import Protocol
    from cembench.suites.forecast import Forecast
    from cembench.training.config import Experiment

DRY_RUN = click.option(
    "--dry-run", is_flag=True, help="Only say what it will cost, and write nothing."
)
HEAD = ["run", "state", "training gradients", "evaluation gradients", "forward passes", "time"]
NOTE = """\
An estimate by these rates, for a machine that does nothing else. Attacks leave an image where they
succeed, so it depends on how robust the networks become: in brackets if 5 % of the images survive,
and if 95 % do. What was done of an interrupted evaluation is not counted."""


def show_training(experiment: Experiment, folder: Path, device: str) -> None:
    """Print what a training will cost in its run folder."""
    from cembench.suites.forecast import Forecaster
    from cembench.util.devices import pick_device

    device = pick_device(device)
    found = {folder.name: Forecaster(None, device).one(experiment, folder)}
    given = {folder.name: experiment}
    show_forecast(found, given, evaluates=False, where=placed(device))


def show_evaluations(runs: Iterable[Path], protocol: Protocol, device: str) -> None:
    """Print what the evaluation of checkpoints will cost, which were trained by cembench."""
    from cembench.models.metadata import read_metadata
    from cembench.suites.forecast import Forecaster
    from cembench.training.config import parse_experiment
    from cembench.util.devices import pick_device
    from cembench.util.files.layout import RunLayout

    device = pick_device(device)
    forecaster, given, found = Forecaster(protocol, device), {}, {}
    for run in runs:
        file = RunLayout.at(run).checkpoint
        config = read_metadata(file).config
        if not config:
            raise CembenchError(
                f"{file}: was not trained by cembench, so --dry-run knows too little"
            )
        given[str(run)] = parse_experiment(config, str(file))
        found[str(run)] = forecaster.evaluation(given[str(run)])
    show_forecast(found, given, evaluates=True, where=placed(device))


def placed(device: str) -> str:
    """Return a device, and how many threads it has if it is the CPU."""
    import torch

    return f"{device}, threads: {torch.get_num_threads()}" if device == "cpu" else device


def show_forecast(
    found: Mapping[str, Forecast],
    experiments: Mapping[str, Experiment],
    *,
    evaluates: bool,
    jobs: int = 1,
    where: str = "",
) -> None:
    """Print the table, the sum, and the rates; fail with what would fail.

    Args:
        found: what each experiment costs, by name.
        experiments: their settings.
        evaluates: whether they are evaluated too.
        jobs: how many run at once.
        where: the device and its threads.
    """
    from cembench.suites.forecast import STARTED
    from cembench.util.display.text_table import text_table

    rows = [_row(name, found[name], experiments[name], evaluates) for name in experiments]
    say("\n".join(text_table(HEAD, rows)))
    known = [one.seconds for one in found.values() if not one.failure]
    if known:
        sums = [STARTED + _together([one[n] for one in known], jobs) for n in range(3)]
        at_once = f", {jobs} at once" if jobs > 1 else ""
        disk = sum(one.bytes for one in found.values())
        say(f"\nin all: {_between(*sums)}{at_once}; {byte_size(disk)} of disk for what is new")
    measured: dict[str, str] = {}
    for name, one in found.items():
        if one.rates and measured.setdefault(repr(experiments[name].model), name) == name:
            say(f"measured on {where}, {_rates(name, one, experiments[name])}")
    if evaluates:
        say(NOTE)
    if failures := [
        f"experiment {name}: {one.failure}" for name, one in found.items() if one.failure
    ]:
        fail("; ".join(failures))


def _row(name: str, one: Forecast, experiment: Experiment, evaluates: bool) -> list[str]:
    state = one.reuse.words(experiment.epochs, evaluates)
    if not any(one.seconds):
        return [name, state, "", "", "", "not known" if one.failure else "–"]
    training, measured = one.training, one.evaluation
    forwards = training.forwards + measured.forwards
    gradients = training.gradients + training.updates, measured.gradients
    counts = [f"{count:,.2g}" if count else "–" for count in (*gradients, forwards)]
    return [name, state, *counts, _between(*one.seconds)]


def _together(seconds: list[float], jobs: int) -> float:
    """Return the time of experiments of which several run at once."""
    return max([sum(seconds) / jobs, *seconds], default=0.0)


def _between(low: float, likely: float, high: float) -> str:
    """Return a time in the unit that suits it, and its limits."""
    units = {"s": 1.0, "min": 60.0, "h": 3600.0, "days": 86400.0}
    unit = [name for name, size in units.items() if likely >= 1.5 * size or name == "s"][-1]
    shown = [_number(value / units[unit]) for value in (low, likely, high)]
    limits = f" ({shown[0]} to {shown[2]})" if shown[0] != shown[2] else ""
    return f"{shown[1]} {unit}{limits}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _rates(name: str, one: Forecast, experiment: Experiment) -> str:
    parts = []
    for what, rates in zip(("training", "attacks"), one.rates or (), strict=True):
        if rates.gradient:
            told = (
                f"{1 / rates.gradient:,.0f} gradients and {1 / rates.forward:,.0f} forward passes"
            )
            parts.append(f"{what} {told} a second")
    return f"{experiment.model.title} of {name}: {'; '.join(parts)}"
