"""New configs: a commented file of one experiment, or of a suite, for a data set and methods."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cembench.data import datasets
from cembench.methods import methods
from cembench.reporting.commented import commented
from cembench.training.config import Experiment, parse_experiment
from cembench.training.starts import EXAMPLES, Start, start_of
from cembench.util.errors import ConfigError, blaming
from cembench.util.overrides import override

SUITE = ("standard", "at", "trades")  # unless methods are named
LEGEND = """\
Lines such as `#epochs: 30` are defaults, unless their comment says otherwise: to change one, remove
its # and put another value. The brackets behind a meaning say which values a key takes."""
HEAD = """
# How the experiments are measured: `quick`, `standard`, `rand`, or a file.
protocol: quick

# Every experiment once with each of these seeds.
#seeds: [0, 1, 2]

# What all experiments start from.
shared:
"""


def new_experiment(
    file: Path, data: str, method: str, model: str | None, overrides: Sequence[str]
) -> str:
    """Return the text of a file of one experiment.

    Raises:
        ConfigError: for unknown names, and for what does not go together, with the reason.
    """
    start, experiment = _parsed(data, method, model, overrides)
    todo = _todo(start.values)
    head = _head(f"cembench train {file}", f"cembench eval runs/{file.stem}", start, todo)
    return head + commented(experiment, start.values)


def new_suite(
    file: Path, data: str, names: Sequence[str], model: str | None, overrides: Sequence[str]
) -> str:
    """Return the text of a file of a suite, with an experiment for each method.

    Raises:
        ConfigError: as above.
    """
    names = tuple(dict.fromkeys(names)) or SUITE
    for name in names:
        if not methods.find(name).trainable:
            what = "fits nothing but features: add it as NAME: {probe: {of: …, mode: knn}}"
            raise ConfigError.single(f"{name} {what}", "experiments")
    found = {name: _parsed(data, name, model, overrides) for name in names}
    start, first = next(iter(found.values()))
    shared = {key: value for key, value in start.values.items() if key != "method"}
    for name, (own, _) in found.items():
        parse_experiment({**shared, "method": own.values["method"]}, f"experiment {name}")
    head = _head(f"cembench run {file}", "cembench report runs", start, _todo(start.values))
    text = head + HEAD + commented(first, shared, ("method", "select"), 2) + "\nexperiments:\n"
    for name, (own, experiment) in found.items():
        text += f"  {name}:\n    method:\n"
        text += commented(experiment.method, own.values["method"], indent=6, top=False)
    return text


def _parsed(
    data: str, method: str, model: str | None, overrides: Sequence[str]
) -> tuple[Start, Experiment]:
    start = start_of(data, method, model)
    start = start._replace(values=override(start.values, overrides))
    with blaming(f"{data} with {method}" + (f" and {model}" if model else "")):
        return start, Experiment.parse(start.values)


def _head(first: str, then: str, start: Start, todo: Sequence[str]) -> str:
    data = datasets.parse(start.values["data"]).name
    lines = [f"{first}   then: {then}"]
    lines += textwrap.wrap(f"For {data}, after the recipe {start.source}. {LEGEND}", 94)
    lines += [line for key in todo for line in textwrap.wrap(f"Before it starts: {key}.", 94)]
    return "".join(f"# {line}\n" for line in lines)


def _todo(values: Mapping[str, Any]) -> list[str]:
    """Return the keys that hold an example of what nobody but the user knows."""
    data, model = values["data"], values["model"]
    inner = {
        "set data.root to your images": data.get("root") == EXAMPLES["root"],
        "set data.parts to your data sets": data["name"] == "mix",
        "set model.target to your network": isinstance(model, dict)
        and model.get("target") == EXAMPLES["target"],
        "set pretrained.checkpoint to the run whose features are used, and model to its network": (
            "pretrained" in values
        ),
    }
    return [key for key, left in inner.items() if left]
