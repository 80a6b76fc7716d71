"""Radii and steps given in bytes, where pixels on [0, 1] are meant: refused with what was meant."""

import pytest
import torch

import cembench as cb
from cembench.energy.threat import Threat, ThreatChange
from cembench.models.checkpoint import load_checkpoint
from cembench.samplers import samplers
from cembench.util.errors import CembenchError, ConfigError
from tests.conftest import NOTHING, experiment
from tests.support.checkpoints import rewrite

PLAN = [*NOTHING, "attacks=[{name: pgd, steps: 1}]", "limit=4"]
BYTES = "; did you mean 8/255"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threat": {"eps": 8}}, f"threat.eps: 8 reaches every image, .*{BYTES}"),
        ({"threat": {"norm": "linf", "eps": 1}}, "threat.eps: 1 reaches every image"),
        ({"threat": {"norm": "l2", "eps": 9000}}, "threat.eps: 9000 reaches every image"),
        ({"threat": {"eps": -0.1}}, "threat.eps"),
        ({"threat": {"eps": float("inf")}}, "threat.eps"),
        ({"threat": {"eps": float("nan")}}, "threat.eps"),
        (
            {"method": {"name": "at", "negatives": {"name": "pgd", "step_size": 2}}},
            "method.negatives.step_size: 2 reaches every image.*did you mean 2/255",
        ),
        (
            {"method": {"name": "jem", "negatives": {"name": "sgld", "eps": 8, "norm": "linf"}}},
            f"method.negatives.eps: 8 reaches.*{BYTES}",
        ),
        (
            {"method": {"name": "jem", "negatives": {"direction": "sign", "step_size": 2}}},
            "method.negatives.step_size: 2 reaches",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_radius_or_step_that_reaches_every_image_is_no_setting(settings, message):
    with pytest.raises(ConfigError, match=message):
        experiment(**settings)


def test_radii_in_bytes_are_refused_wherever_the_shape_is_known(cembench, trained, copy, tmp_path):
    result = cembench("train", "digits-at", "threat.norm=l2", "threat.eps=8", "--out", tmp_path)
    assert result.code == 2 and "threat.eps: 8 reaches every image" in result.err
    assert "further apart than 8 in l2; did you mean 8/255?" in result.err
    assert not (tmp_path / "digits-at").exists()
    for change, place in (
        ("threat.eps=8", "threat.eps: 8 reaches"),
        ("threat={norm: l2, eps: 60}", "threat.eps: 60 reaches"),
        ("curve={eps: [0.1, 8]}", "curve.eps: 8 reaches"),
        ("attacks=[{name: pgd, step_size: 2}]", "step_size: 2 reaches"),
        ("samples={count: 20, samplers: [{name: pgd, step_size: 2}]}", "step_size: 2 reaches"),
    ):
        result = cembench("eval", copy, change)
        assert result.code == 2 and f"{copy}: {place}" in result.err and "/255?" in result.err
    net = load_checkpoint(trained)[0]
    for eps in (8, 1.0):
        with pytest.raises(CembenchError, match=r"threat\.eps: .* reaches every image"):
            cb.evaluate(net, threat=Threat(norm="linf", eps=eps))
    weights = tmp_path / "w.pt"
    torch.save(net.net.state_dict(), weights)
    given = ["import", "--model", "small_cnn", "--weights", weights, "--dataset", "digits"]
    result = cembench(*given, "--eps", 8, "--out", tmp_path / "run")
    assert result.code == 2 and "eps: 8 reaches every image" in result.err


def test_radii_in_pixels_are_taken_as_numbers_and_fractions():
    assert experiment(threat={"eps": "8/255"}).threat.eps == 8 / 255
    assert ThreatChange.parse({"norm": "l2", "eps": "128/255"}).eps == 128 / 255
    assert samplers.parse({"name": "pgd", "step_size": "2/255"}).step_size == 2 / 255
    assert samplers.parse({"name": "rcs", "direction": "raw", "step_size": 20.0}).step_size == 20
    assert Threat.parse({"norm": "linf", "eps": 8.0}).eps == 8  # files of earlier versions say so


def test_a_checkpoint_with_a_radius_in_bytes_is_shown_and_attacked_under_another(
    cembench, trained, tmp_path
):
    threat = {"norm": "linf", "eps": 8.0}
    file = rewrite(trained, tmp_path / "m.safetensors", lambda values: values.update(threat=threat))
    assert "linf-8\n" in cembench("show", file).out
    assert f"{file}: threat.eps: 8 reaches" in cembench("eval", file, *PLAN).err
    assert cembench("eval", file, *PLAN, "threat.eps=8/255").code == 0
