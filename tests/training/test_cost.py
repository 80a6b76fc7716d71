"""What a training will cost is told when it begins; what nobody can pay is refused."""

import pytest

from cembench.models.metadata import read_metadata
from cembench.training import cost
from cembench.util.display.format import roughly
from cembench.util.files.yaml import to_yaml
from tests.conftest import TINY


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(TINY | {"epochs": 1}))
    return path


def test_the_cost_of_a_training_is_its_first_line(cembench, config, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "STEPS", 2)
    monkeypatch.setattr(cost, "LONG", 0)
    result = cembench("train", config, "--out", tmp_path)
    first, second, third = result.err.splitlines()
    spent = read_metadata(tmp_path / "c" / "model.safetensors").gradients
    product = f"epochs × steps × images = 1 × {spent // 128 // 4} × 128"
    assert first == f"c: {product}, about {spent:.2g} gradient evaluations"
    assert second == "c: less than a minute left at the rate of the first 2 steps"
    assert third.startswith("c: epoch 1/1")


def test_each_rollback_is_told_and_they_end(cembench, config, tmp_path):
    limits = ["divergence.policy=rollback", "divergence.bound=1e-9", "divergence.limit=2"]
    result = cembench("train", config, "--out", tmp_path, *limits)
    assert result.code == 2 and "(2 times rolled back)" in result.err.splitlines()[-1]
    assert result.err.count("back to epoch 0 with new randomness") == 2


@pytest.mark.parametrize(
    "setting", ["epochs=1000000000000000000", "divergence.limit=100000", "validation.every=1e20"]
)
def test_what_nobody_can_pay_is_refused(cembench, config, tmp_path, setting):
    result = cembench("train", config, "--out", tmp_path, setting)
    assert result.code == 2 and setting.partition("=")[0] in result.err
    assert len(result.err.splitlines()) == 1 and not (tmp_path / "c").exists()


def test_a_duration_has_no_digits_that_nobody_can_know():
    hour, day = 3600, 86400
    found = [roughly(seconds) for seconds in (4, 200, 47 * 60, 5 * hour, 9 * day, 7e11)]
    words = ["about 3 min", "about 45 min", "about 5 h", "about 9 days", "about 22,197 years"]
    assert found == ["less than a minute", *words]
