"""`cembench init`: every key of a new config is explained, named rightly, and says what it does."""

import re
from pathlib import Path

import pytest

from cembench.data import datasets
from cembench.methods import methods
from cembench.models import models
from cembench.reporting.new_config import new_experiment, new_suite
from cembench.suites.suite import load_suite
from cembench.training.config import parse_experiment
from cembench.training.starts import start_of
from cembench.util.errors import ConfigError
from cembench.util.files.yaml import parse_yaml

FILE = Path("mine.yaml")
UNION = "{name: e-at, threats: [{norm: linf, eps: 0.1}, {norm: l2, eps: 1}]}"
UNSET = re.compile(r"^( *)#(?=\w+:)", re.M)
PAIRS = [("digits", method) for method in methods.names()]
PAIRS += [("cifar10", method) for method in ("dat", "eb-jdat", "infonce", "jem")]
PAIRS += [(data, "trades") for data in datasets.names() if data not in ("digits", "memory")]


@pytest.mark.parametrize(("data", "method"), PAIRS)
def test_a_new_config_is_what_it_was_made_of_and_so_is_each_comment(data, method):
    text = new_experiment(FILE, data, method, None, ())
    given = parse_experiment(start_of(data, method).values, "start")
    written = parse_experiment(parse_yaml(text, "mine.yaml"), "mine.yaml")
    assert written.identity == given.identity and written == given
    assert (written.data.name, written.method.name) == (data, method)
    every = parse_experiment(parse_yaml(UNSET.sub(r"\1", text), "mine.yaml"), "mine.yaml")
    assert every.identity == given.identity
    assert max(map(len, text.splitlines())) <= 100


def test_every_key_has_its_meaning_its_choices_and_its_default():
    lines = new_experiment(FILE, "cifar10", "dat", None, ()).splitlines()
    for number, line in enumerate(lines):
        if re.match(r" *#?\w+:", line):
            assert lines[number - 1].lstrip().startswith("# "), line
    text = " ".join(" ".join(lines).split())
    assert "default 10" in text and "depth: 34" in text and "#activation: relu" in text
    assert "(relu, silu, softplus)" in text and "avg, confidence, cs" in text
    assert "recipe: " not in text and "label: " not in text


def test_networks_and_changes_are_taken():
    for model in models.names():
        text = new_experiment(FILE, "cifar10", "at", model, ("epochs=3",))
        found = parse_experiment(parse_yaml(text, "mine.yaml"), "mine.yaml")
        assert found.model.name == model and found.epochs == 3
    assert "Before it starts: set model.target" in new_experiment(FILE, "svhn", "at", "factory", ())


@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_a_new_suite_has_an_experiment_for_each_method(data, tmp_path):
    names = [name for name in methods.names() if name != "knn"]
    for chosen in (names, []):
        (tmp_path / "s.yaml").write_text(new_suite(FILE, data, chosen, None, ()))
        found, protocol = load_suite(tmp_path / "s.yaml")
        assert [*found] == (chosen or ["standard", "at", "trades"]) and protocol.name == "quick"
        assert all(one.method.name == name for name, one in found.items())
    every = UNSET.sub(r"\1", (tmp_path / "s.yaml").read_text())
    (tmp_path / "s.yaml").write_text(every)
    assert len(load_suite(tmp_path / "s.yaml")[0]) == 9  # each with the three seeds of the comment


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cifr10", "at", None, ()), "did you mean 'cifar10'?"),
        (("digits", "trads", None, ()), "did you mean 'trades'?"),
        (("digits", "at", "resnet81", ()), "did you mean 'resnet18'?"),
        (("memory", "at", None, ()), "no file can name"),
        (("digits", "infonce", None, ("select=robust",)), "digits with infonce: select: robust"),
        (("digits", "jem", None, (f"method.negatives={UNION}",)), "e-at is for `negatives` of"),
        (("digits", "adv-infonce", None, ("batch_size=1",)), "batch_size"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        new_experiment(FILE, *arguments)


def test_the_command_writes_what_train_takes(cembench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["epochs=1", "model.width=2", "method.negatives.steps=1"]
    made = cembench("init", "mine.yaml", "--data", "digits", "--method", "at", *few)
    assert (made.code, made.out) == (0, "cembench train mine.yaml\n")
    done = cembench(*made.out.split()[1:], "--device", "cpu")
    assert done.out.split() == ["runs/mine/model.safetensors"], done.err
    for wrong in (["--recipe", "digits-at", "--data", "mnist"], ["--method=at", "--method=cem"]):
        refused = cembench("init", "other.yaml", *wrong)
        assert refused.code == 2 and len(refused.err.splitlines()) == 1
    refused = cembench("init", "s.yaml", "--suite", "--method", "knn")
    assert refused.code == 2 and "probe" in refused.err
    assert {*tmp_path.glob("*.yaml")} == {tmp_path / "mine.yaml"}
