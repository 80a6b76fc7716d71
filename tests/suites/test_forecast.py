"""`--dry-run`: counts passes as they are made, measures rates, and writes nothing."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cembench.attacks import Target
from cembench.attacks.autoattack_fast import FastAutoAttack
from cembench.bench.passes import Counted
from cembench.bench.passes import Passes as Made
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import parse_protocol
from cembench.methods import methods
from cembench.suites.forecast import Forecaster
from cembench.suites.launchers import local
from cembench.suites.passes import Passes, attack_passes, evaluation_passes, training_passes
from cembench.suites.reused import Reuse
from cembench.suites.sizes import KNOWN, images_of
from cembench.training.cost import gradients_per_image
from cembench.util.files.yaml import to_yaml
from tests.conftest import TINY, experiment

SUITE = {
    "protocol": "p.yaml",
    "shared": TINY | {"epochs": 1},
    "experiments": {"at": {}, "standard": {"method": "standard"}},
}
PROTOCOL = "{limit: 20, attacks: [{name: pgd, steps: 2}]}"


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(to_yaml(SUITE))
    Path("p.yaml").write_text(PROTOCOL)
    return tmp_path


def test_a_suite_is_forecast_without_running_it_and_then_known_as_done(
    cembench, suite, monkeypatch
):
    monkeypatch.setattr(local, "cores", lambda: 2)
    new = cembench("run", "s.yaml", "--dry-run", "--jobs", 2)
    assert new.code == 0, new.err
    rows = [line.split()[:2] for line in new.out.splitlines()[1:3]]
    assert rows == [["at", "new"], ["standard", "new"]]
    assert ", 2 at once; " in new.out and "measured on cpu" in new.out and "An estimate" in new.out
    assert {path.name for path in suite.iterdir()} == {"s.yaml", "p.yaml"}, "nothing is written"
    assert cembench("run", "s.yaml", "--jobs", 1).code == 0
    before = sorted(suite.rglob("*"))
    done = cembench("run", "s.yaml", "--dry-run", "--jobs", 1).out.splitlines()
    assert [line.split()[1:3] for line in done[1:3]] == [["done", "–"], ["done", "–"]]
    Path("p.yaml").write_text(PROTOCOL.replace("2", "3"))
    again = cembench("run", "s.yaml", "--dry-run", "--jobs", 1).out.splitlines()
    assert [line.split()[1] for line in again[1:3]] == ["trained", "trained"]
    assert sorted(suite.rglob("*")) == before


def test_one_training_and_one_evaluation_are_forecast_too(cembench, suite, trained):
    Path("c.yaml").write_text(to_yaml(experiment().dump()))
    told = cembench("train", "c.yaml", "epochs=2", "--dry-run")
    assert told.code == 0 and told.out.splitlines()[1].split()[:2] == ["c", "new"]
    told = cembench("eval", trained, "--protocol", "p.yaml", "--dry-run")
    assert told.code == 0 and f"{trained}  trained" in told.out
    assert not (suite / "runs").exists()
    missing = cembench("train", "c.yaml", "data={name: folder, root: none}", "--dry-run")
    assert "not known" in missing.out and "experiment c: data.root: no folder none" in missing.err
    assert missing.code == 2


def test_what_was_begun_is_counted_from_there_and_what_would_be_refused_is_told(cembench, suite):
    assert cembench("run", "s.yaml", "--jobs", 1).code == 0
    (suite / "runs/at/model.safetensors").unlink()
    changed = SUITE | {"shared": TINY | {"epochs": 5, "seed": 7}}
    Path("s.yaml").write_text(to_yaml(changed))
    told = cembench("run", "s.yaml", "--dry-run", "--jobs", 1)
    assert told.out.splitlines()[1].split()[1] == "refused"
    assert "begun with another configuration: epochs was 1, now 5" in told.err
    assert Reuse(epochs=3).words(5, True) == "goes on after epoch 3 of 5"


@pytest.mark.parametrize("name", [name for name in methods.names() if name != "knn"])
def test_training_passes_are_what_a_method_says_that_it_costs(name):
    chosen = {"method": name, "epochs": 30, "select": "last"}
    config = experiment(**chosen, validation={"every": 30, "images": 1, "steps": 1})
    found = training_passes(config, images=1080, held=0)
    assert found.gradients + found.updates >= 30 * 1024 * gradients_per_image(config)
    assert training_passes(config, 1080, 0, begun=29).updates * 29 < found.updates * 2


def test_passes_of_autoattack_are_those_that_are_made():
    torch.manual_seed(0)
    made, net = Made(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x = torch.rand(4, 1, 8, 8)
    target = Target.of(Counted(net, made), Threat(norm="linf", eps=1e-6), 10)
    for _, propose in FastAutoAttack().stages(target):
        propose(x, net(x).argmax(1))
    likely = attack_passes(FastAutoAttack(), len(x), 256, 10, survive=1.0)
    projection = 0.5 * 100 * 9 * len(x)  # of FAB, which is counted as half a gradient
    assert made.images(True) == pytest.approx(likely.gradients - projection, rel=0.02)
    assert made.images(False) == pytest.approx(likely.forwards, rel=0.1)


def test_more_survivors_cost_more_and_samples_limit_what_they_cost():
    plan = {
        "limit": 100,
        "sanity": {},
        "curve": {},
        "density": {},
        "samples": {"samplers": ["rcs"]},
    }
    for attack in ("pgd", "autoattack", "autoattack-fast", {"name": "sparse-rs", "queries": 9}):
        protocol = parse_protocol({**plan, "attacks": [attack]})
        costs = [evaluation_passes(protocol, 100, 10, s).in_gradients for s in (0.1, 0.5, 0.9)]
        assert costs == sorted(costs) and costs[0] > 0
    whole, part = (
        attack_passes(FastAutoAttack(sample=sample), 100, 100, 10, 0.9) for sample in (None, 10)
    )
    assert part.gradients < whole.gradients / 2 and part.forwards < whole.forwards / 5


def test_sizes_are_those_of_the_data(tmp_path):
    import PIL.Image

    from cembench.data import datasets
    from cembench.data.digits import Digits

    train, test = (Digits().load(split) for split in ("train", "test"))
    assert KNOWN["digits"] == (len(train), len(test), train.shape, len(train.classes))
    for place in ("train/cat/1", "train/cat/2", "train/dog/1", "test/dog/1"):
        file = tmp_path / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (6, 4)).save(file)
    folder = datasets.parse({"name": "folder", "root": str(tmp_path)})
    assert images_of(folder) == (3, 1, (3, 4, 6), 2)
    assert images_of(datasets.parse({"name": "mix", "parts": ["cifar10", "svhn"]})).test == 10_000


def test_each_architecture_is_measured_once(monkeypatch, tmp_path):
    calls = []

    def measured(*_):
        from cembench.suites.rates import Rates

        calls.append(1)
        return Rates(1.0, 1.0, 1.0)

    monkeypatch.setattr("cembench.suites.forecast.training_rates", measured)
    found = Forecaster(None, "cpu").all({"a": experiment(), "b": experiment(seed=1)}, tmp_path)
    assert len(calls) == 1 and found["a"].seconds == found["b"].seconds
    assert found["a"].training.updates == 3 * 1024 and found["a"].bytes > 0
    assert Passes(1, 2, 3) + Passes(1, 1, 1) * 2 == Passes(3, 4, 5)
