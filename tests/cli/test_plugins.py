"""What cembench takes from outside: every example, as a module and as an installed package."""

import importlib.util
import json
import re
import tomllib
from functools import partial
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest

from cembench.methods import Method, methods
from cembench.util.errors import CembenchError
from cembench.util.files.yaml import to_yaml
from cembench.util.moved import MODULES
from tests.support.forks import call_apart, fresh_python

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "plugins"
PROJECT = tomllib.loads((EXAMPLES / "pyproject.toml").read_text())
ENTRIES = PROJECT["project"]["entry-points"]["cembench.plugins"]
CONFIG = {
    "data": {"name": "moons", "images": 200},
    "model": {"name": "patch-mixer", "width": 16, "patch": 3},
    "method": {"name": "logit-pairing", "negatives": {"name": "margin", "steps": 2, "eps": 0.1}},
    "epochs": 6,
    "batch_size": 32,
    "tracker": "text-log",
}
PROTOCOL = {
    "limit": 40,
    "attacks": [{"name": "pgd", "steps": 2}],
    "samples": {
        "count": 40,
        "extractor": {"name": "lite0", "size": 32},
        "samplers": ["margin"],
        "metrics": ["pixel-distance", "coverage"],
    },
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.yaml").write_text(to_yaml(CONFIG))
    (tmp_path / "plan.yaml").write_text(to_yaml(PROTOCOL))
    return tmp_path


@pytest.fixture
def installed(tmp_path):
    """A folder that holds the examples as pip lays out a package, entry points and all."""
    site = tmp_path / "site"
    about = site / f"{PROJECT['project']['name'].replace('-', '_')}-0.1.0.dist-info"
    about.mkdir(parents=True)
    for module in PROJECT["tool"]["setuptools"]["py-modules"]:
        (site / f"{module}.py").write_bytes((EXAMPLES / f"{module}.py").read_bytes())
    lines = [f"{name} = {module}" for name, module in ENTRIES.items()]
    (about / "entry_points.txt").write_text("\n".join(["[cembench.plugins]", *lines]))
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: cembench-examples\nVersion: 0.1.0\n"
    )
    return site


def goes_all_the_way(folder, *plugins):
    """Train, attack, sample, measure, rank and sample again with all examples together."""
    call = partial(call_apart, path=EXAMPLES)
    done = call(folder, "train", "mine.yaml", *plugins)
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (folder / "runs/mine/log.jsonl").read_text().splitlines()]
    assert log[0]["run"] == "mine" and [line["epoch"] for line in log[1:]] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["train/pairing"] > 0 and log[-1]["validation/clean_acc"] > 0.8
    done = call(folder, "eval", "runs/mine", "--protocol", "plan.yaml", *plugins)
    assert done.returncode == 0, done.stderr
    done = call_apart(folder, "leaderboard", "runs")  # tables need no plugin
    assert done.returncode == 0 and "| pixel-distance ↓ | coverage ↑ |" in done.stdout
    table = pd.read_csv(folder / "leaderboards" / "moons-samples-gaussian.csv")
    assert 0 < table["pixel-distance"][0] < 0.5 and table["sampler"][0] == "margin"
    args = ("sample", "runs/mine", "--sampler", "margin", "-n", 4, "--init", "noise")
    done = call(folder, *args, "--trajectory", "chain.png", *plugins)
    assert done.returncode == 0 and (folder / "chain.png").exists(), done.stderr


def test_all_examples_together_as_modules(folder):
    plugins = [f"--plugin={module}" for module in ENTRIES.values()]
    goes_all_the_way(folder, *plugins)
    missing = call_apart(folder, "eval", "runs/mine")
    assert missing.returncode == 2 and "Give it with --plugin" in missing.stderr


def test_all_examples_together_as_an_installed_package(folder, installed):
    with fresh_python(installed) as call:
        done = call(folder, "train", "mine.yaml")
        listed = call(folder, "list").stdout
    assert done.returncode == 0, done.stderr
    for name in ENTRIES:
        assert re.search(rf"\b{name}\b", listed), name


def test_the_project_of_the_examples_installs_what_its_folder_holds():
    assert set(ENTRIES.values()) == {file.stem for file in EXAMPLES.glob("*.py")}
    assert PROJECT["tool"]["setuptools"]["py-modules"] == sorted(ENTRIES.values())


@pytest.mark.parametrize("value", ["moons margin", "moons,margin", " moons,\n margin "])
def test_a_variable_names_plugins_for_every_command(tmp_path, value):
    environment = {"CEMBENCH_PLUGINS": value, "path": EXAMPLES}
    assert "moons" in call_apart(tmp_path, "list", "datasets", **environment).stdout
    assert "margin" in call_apart(tmp_path, "list", "samplers", **environment).stdout
    assert "CEMBENCH_PLUGINS" in call_apart(tmp_path, "list", "--help").stdout
    wrong = call_apart(tmp_path, "list", "datasets", CEMBENCH_PLUGINS="nowhere")
    assert wrong.returncode == 2 and "No module named 'nowhere'" in wrong.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nowhere", "plugin cannot be imported: No module named 'nowhere'"),
        ("x = ", "plugin cannot be imported: SyntaxError"),
        ("1 / 0", "plugin cannot be imported: ZeroDivisionError"),
        ("import cembench.potentials", "; it is cembench.energy.potentials now"),
        ("import cembench.evaluation.attacks.pgd", "; it is cembench.attacks now"),
        ("from cembench.samplers import Scene", "; it is cembench.samplers.SamplerContext now"),
    ],
)
def test_a_broken_plugin_is_one_line(tmp_path, content, message):
    (tmp_path / "mine.py").write_text(content)
    result = call_apart(tmp_path, "list", "--plugin", "mine")
    assert result.returncode == 2 and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_every_place_that_an_error_names_is_there():
    for place in MODULES.values():
        for module in place.split(" and "):
            assert importlib.util.find_spec(module) is not None, module


class Silent(Method):
    name: ClassVar[str] = "silent"


class Nameless(Method):
    def loss(self, model, images, y, context):
        return model(images["x"]).sum(), {}


class Crooked(Nameless):
    name: ClassVar[str] = "my/method"


class Taken(Nameless):
    name: ClassVar[str] = "trades"


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Silent, "method 'silent' lacks loss"),
        (Nameless, "Nameless is no method: .* a class variable `name`"),
        (Crooked, "Crooked is no method"),
        (Path, "Path is no method: it needs the base Method"),
        (Taken, "method 'trades' is registered already"),
    ],
)
def test_what_cannot_work_is_refused_when_it_registers(cls, message):
    with pytest.raises(CembenchError, match=message):
        methods.register(cls)
    assert "silent" not in methods.names()
