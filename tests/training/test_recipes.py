"""Recipes: what comes with cembench is found by name, described, valid, and copied as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from cembench.data import datasets
from cembench.suites.suite import load_suite
from cembench.training.config import load_experiment
from cembench.training.recipes import recipes
from cembench.util.errors import ConfigError
from cembench.util.shipped import shipped

ROOT = Path(__file__).parents[2]
LOAD = {"experiment": load_experiment, "suite": load_suite}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder without configs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
def test_every_recipe_is_valid_and_so_is_its_copy(cembench, elsewhere, recipe):
    name, kind, data, description = recipe
    loaded = LOAD[kind](Path(name))
    assert description[-1] == "." and len(description) <= 98
    assert data in datasets.names()
    made = cembench("init", "mine.yaml", "--recipe", name)
    assert made.out == f"cembench {'run' if kind == 'suite' else 'train'} mine.yaml\n"
    assert LOAD[kind](elsewhere / "mine.yaml") == loaded
    assert (elsewhere / "mine.yaml").read_text().startswith(f"# {description}\n")


def test_recipes_are_listed_without_torch(cembench):
    listed = cembench("list", "recipes").out.splitlines()
    assert [line.split()[:3] for line in listed] == [list(found[:3]) for found in recipes()]
    assert [line.split()[0] for line in listed] == shipped("recipe")
    code = (
        "import sys; from cembench.cli import main; main(['list', 'recipes'], standalone_mode=0);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_recipe_trains_by_name_in_a_run_of_that_name(cembench, elsewhere):
    few = ["--set", "epochs=1", "--set", "model.width=2", "--set", "method.negatives.steps=1"]
    done = cembench("train", "digits-at", *few, "--device", "cpu")
    assert done.out.split() == ["runs/digits-at/model.safetensors"], done.err
    assert (elsewhere / "runs/digits-at/config.yaml").exists()


def test_a_file_that_is_there_is_kept(cembench, elsewhere):
    (elsewhere / "mine.yaml").write_text("data: cifar10\n")
    refused = cembench("init", "mine.yaml")
    assert refused.code == 2 and "--force" in refused.err
    assert (elsewhere / "mine.yaml").read_text() == "data: cifar10\n"
    assert cembench("init", "mine.yaml", "--force").code == 0
    assert load_experiment(elsewhere / "mine.yaml") == load_experiment(Path("digits-at"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "quikstart"), "no recipe 'quikstart'; did you mean 'quickstart'"),
        (("train", "cifar10-aat"), "did you mean 'cifar10-at'"),
        (("train", "none.yaml"), "cannot read none.yaml"),
        (("train", "quickstart"), "quickstart: a suite; cembench run quickstart takes it"),
        (("run", "cifar10-at"), "one experiment; cembench train cifar10-at takes it"),
        (("train", "digits-at", "--set", "epocs=1"), "digits-at: epocs: unknown key"),
        (("init", "mine.yaml", "--recipe", "nope"), "no recipe 'nope'"),
        (("init", "mine"), ".yaml"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(cembench, elsewhere, arguments, message):
    result = cembench(*arguments)
    assert result.code == 2 and message in result.err and len(result.err.splitlines()) == 1
    assert not list(elsewhere.iterdir())


def test_a_file_without_an_ending_and_one_in_a_folder_are_files(elsewhere):
    expected = load_experiment(Path("digits-at"))
    text = "{data: digits, model: small_cnn, method: at}"
    for place in (Path("plain"), Path("folder/quickstart"), elsewhere / "digits-at.yaml"):
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
        assert load_experiment(place) != expected
    with pytest.raises(ConfigError, match="no recipe 'folder'"):
        load_experiment(Path("folder"))
