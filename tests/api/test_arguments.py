"""Calls with wrong arguments: each is told in one line that names the argument or the key."""

import pytest
import torch

import cembench as cb
from cembench.util.errors import CembenchError
from tests.conftest import Linear

NET = Linear(64, 10)
X, Y = torch.zeros(4, 1, 8, 8), torch.arange(4)
GIVEN = {"trust_pixels": True}


def evaluate(*args, **kwargs):
    return cb.evaluate(NET, (X, Y), *args, **GIVEN, **kwargs)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: evaluate(["pgd"], threat="8/255"), "threat.norm: give one of linf, l2"),
        (lambda: evaluate(["pgd"], threat="linf 8"), "did you mean 8/255"),
        (lambda: evaluate(["pgd"], threat={"norm": "linf", "eps": 8}), "did you mean 8/255"),
        (lambda: evaluate(["pgd"], threat={"norm": "l9"}), "threat.norm: give one of"),
        (lambda: evaluate(["pgd"], threat={"nrm": "l2"}), "nrm: unknown key; did you mean 'norm'"),
        (lambda: evaluate(["pgd"], threat={"norm": "l2", "eps": "a"}), "threat.eps: input should"),
        (lambda: evaluate(["pgd"], threat={"norm": "l2", "eps": float("nan")}), "finite number"),
        (lambda: evaluate(["pgd"], threat=0.1), "threat: a float is none; give text such as"),
        (lambda: evaluate(["pgd"], threat=("l2", 1)), "threat: a tuple is none"),
        (lambda: evaluate(["pgd"], threats=3), "threats: give a list such as"),
        (lambda: evaluate(["pgd"], threats=["l2 1"], threat="l2 1"), "give threat or threats"),
        (lambda: evaluate(attacks=["pgdd"]), "unknown attack 'pgdd'; did you mean 'pgd'?"),
        (lambda: evaluate(attacks=3), "give a name, a file, settings or a list of attacks, got 3"),
        (lambda: evaluate(attacks=[]), "nothing to measure: give one of attacks"),
        (lambda: evaluate(attacks=[{"name": "pgd", "stps": 1}]), "did you mean 'steps'?"),
        (lambda: evaluate(None), "a list of attacks, got None"),
        (lambda: evaluate("quik"), "no protocol or file 'quik'; did you mean 'quick'?"),
        (lambda: evaluate({"atacks": ["pgd"]}), "atacks: unknown key; did you mean 'attacks'?"),
        (lambda: evaluate(device=0), "device: give text, got 0"),
        (lambda: evaluate(device="gpu"), "device gpu: give auto, cpu, cuda"),
        (lambda: evaluate(out=3), "out: give text or a path, got 3"),
        (lambda: evaluate(atacks=["pgd"]), "unexpected keyword argument 'atacks'"),
        (lambda: cb.evaluate(NET, 3), "an object of type int holds no images"),
        (lambda: cb.evaluate(NET, "digts"), "unknown data set 'digts'; did you mean 'digits'?"),
        (lambda: cb.evaluate(NET), "say which data set the network classifies"),
        (lambda: cb.evaluate(NET, (Y, X), ["pgd"], **GIVEN), "no pairs of image and label"),
        (lambda: cb.evaluate(None, (X, Y)), "a NoneType is no torch.nn.Module, function"),
        (lambda: cb.evaluate("none"), "cannot read none: No such file"),
        (lambda: cb.train(3), "config: a int is no recipe, file or settings"),
        (lambda: cb.train("digit-at"), "no recipe or file 'digit-at'; did you mean 'digits-at'?"),
        (lambda: cb.train({"modle": "small_cnn"}), "modle: unknown key; did you mean 'model'?"),
        (lambda: cb.train("digits-at", overrides="epochs=1"), "overrides: give a list, each of it"),
        (lambda: cb.train("digits-at", overrides={"epochs": 1}), "overrides: give a list, each of"),
        (lambda: cb.train("digits-at", overrides=["epocs=1"]), "did you mean 'epochs'?"),
        (lambda: cb.train("digits-at", name=3), "name: give text, got 3"),
        (lambda: cb.sample(NET, "rcz", data="digits"), "unknown sampler 'rcz'; did you mean 'rcs'"),
        (lambda: cb.sample(NET, 3, data="digits"), "sampler: a int is no name or settings of one"),
        (lambda: cb.sample(NET, "rcs", stps=3), "stps: unknown key; did you mean 'steps'?"),
        (lambda: cb.sample(NET, count=0), "count: give 1 or more, got 0"),
        (lambda: cb.sample(NET, count="3"), "count: give a whole number, got '3'"),
        (lambda: cb.sample(NET, count=True), "count: give a whole number, got True"),
        (lambda: cb.sample(NET, label="a"), "label: give a whole number, got 'a'"),
        (lambda: cb.sample(NET, seed=1.5), "seed: give a whole number, got 1.5"),
        (lambda: cb.counterfactuals(NET, X, eps="a"), "eps: give a number, got 'a'"),
        (lambda: cb.restore(NET, X), "restore: give inpaint or denoise"),
        (lambda: cb.corrupt(3, "fog"), "images: give a tensor"),
        (lambda: cb.corrupt(X, "fogg"), "corruption 'fogg' is unknown; did you mean 'fog'?"),
        (lambda: cb.load(3), "path: give text or a path, got 3"),
        (lambda: cb.leaderboard(3), "runs: give records, folders of runs, or a list of them"),
        (lambda: cb.leaderboard([3]), "runs: a int is no record, file or folder"),
        (lambda: cb.leaderboard("none"), "no records below none"),
        (lambda: cb.records("none"), "no records below none"),
        (lambda: cb.records("none", 3), "where: give text, got 3"),
        (lambda: cb.report("none"), "no records below none"),
        (lambda: cb.plot("none", form="jpg"), "form: give png, svg or pdf, got 'jpg'"),
        (lambda: cb.compare("none", "other"), "none: no such record or run"),
        (lambda: cb.compare(3, "other"), "first: a int is no record, file or run folder"),
        (lambda: cb.verify("none.json"), "a record is of one checkpoint, a table of runs"),
        (lambda: cb.verify("none.csv", "none"), "no records below none"),
        (lambda: cb.check("none.yaml", "none"), "checkpoints: give a list, each of it text or a"),
        (lambda: cb.check("none.yaml"), "cannot read none.yaml"),
        (lambda: cb.run_suite(3), "path: give text or a path, got 3"),
        (lambda: cb.run_suite("none"), "none"),
        (lambda: cb.probe("none", "lin"), "none"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CembenchError) as error:
        call()
    text = str(error.value)
    assert words in text and "\n" not in text and "pydantic" not in text and "http" not in text


def test_a_threat_model_without_its_radius_is_the_customary_one():
    for given in ("linf", {"norm": "linf"}):
        assert str(evaluate(["pgd"], threat=given).threat) == "linf-8/255"
