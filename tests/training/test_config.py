"""Settings: strict, exact about numbers, and helpful about mistakes."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, model_validator

from cembench.data import datasets
from cembench.energy.threat import Threat, ThreatChange
from cembench.evaluation.protocol import parse_protocol
from cembench.methods import methods
from cembench.models import models
from cembench.training.config import Experiment, load_experiment, parse_experiment
from cembench.training.optim import learning_rate_factor
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.yaml import in_line, parse_yaml, read_yaml, to_yaml
from cembench.util.overrides import override
from cembench.util.registry import Registry
from cembench.util.settings import Settings, fraction
from tests.conftest import TINY, experiment
from tests.support.fuzz_configs import fuzz_configs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "epoch: unknown key; did you mean 'epochs'"),
        ({"optimizer": {"lrr": 1}}, "optimizer.lrr: unknown key; did you mean 'lr'"),
        ({"method": {"name": "at", "negatives": {"stepz": 1}}}, "method.negatives.stepz.*'steps'"),
        ({"method": "trade"}, "method.name: unknown method 'trade'; did you mean 'trades'"),
        ({"model": {"name": "small_cnn", "widht": 3}}, "model.widht: .*did you mean 'width'"),
        ({"model": "resnet"}, "unknown model 'resnet'"),
        ({"data": "digit"}, "data.name: unknown data set 'digit'; did you mean 'digits'"),
        ({"threat": {"eps": -1}}, "threat.eps: .*greater than or equal to 0"),
        ({"threat": {"eps": float("nan")}}, "threat.eps: .*finite"),
        ({"threat": {"eps": float("inf")}}, "threat.eps: .*finite"),
        ({"threat": {"eps": "8/0"}}, "threat.eps: division by zero"),
        ({"threat": {"eps": "8/x"}}, "threat.eps"),
        ({"threat": {"norm": "l3"}}, "threat.norm"),
        ({"threat": "l3 0.1"}, "threat.norm: give one of linf, l2, l1, l0, got 'l3'"),
        ({"threat": "linf 8"}, "threat.eps: .*did you mean 8/255"),
        ({"threat": [1]}, r"threat: input should be a valid dictionary, got \[1\]"),
        ({"optimizer": {"nesterov": True, "momentum": 0}}, "optimizer: nesterov needs momentum"),
        ({"epochs": "3"}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"epochs": 0}, "epochs"),
        (
            {"method": None},
            "method: give the name of a method: adv-infonce, at, cem, cem-b, dat, eb-jdat",
        ),
        ({"validation": {"fraction": 0}}, "validation.fraction"),
    ],
)
def test_a_mistake_names_the_key_its_place_and_the_nearest_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        experiment(**changes)


def test_an_override_reaches_into_a_list():
    mix = {"name": "mix", "parts": ["digits", {"name": "digits", "share": 0.5}]}
    found = override({"data": mix}, ["data.parts.1.share=0.7", "data.parts.0.crop=1"])
    assert found["data"]["parts"] == [
        {"name": "digits", "crop": 1},
        {"name": "digits", "share": 0.7},
    ]
    for wrong, words in (
        ("parts.2.crop=1", "no number 2 among 2"),
        ("parts.crop=1", "'parts' holds"),
    ):
        with pytest.raises(ConfigError, match=words):
            override({"data": mix}, [f"data.{wrong}"])


def test_missing_keys_are_all_named_at_once():
    with pytest.raises(
        ConfigError, match=r"test: data: required.*model: required.*method: required"
    ):
        parse_experiment({}, "test")


def test_all_mistakes_of_a_config_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        experiment(
            epocs=3,
            method={"name": "dat", "contrast": {"stepz": 4}, "negatives": {"restart": 2}},
            data="digit",
            threat={"norm": "linf", "epz": 1},
            tracker=["tensorboard", {"name": "wandb", "projekt": "x"}, "wandbb"],
            optimizer={"nesterov": True, "momentum": 0},
        )
    assert {".".join(place): text for place, text in error.value.problems} == {
        "epocs": "unknown key; did you mean 'epochs'?",
        "method.contrast.stepz": "unknown key; did you mean 'steps'?",
        "method.negatives.restart": "unknown key; did you mean 'restarts'?",
        "data.name": "unknown data set 'digit'; did you mean 'digits'?",
        "threat.epz": "unknown key; did you mean 'eps'?",
        "tracker.1.projekt": "unknown key; did you mean 'project'?",
        "tracker.2.name": "unknown tracker 'wandbb'; did you mean 'wandb'?",
        "optimizer": "nesterov needs momentum above 0",
    }


def test_all_mistakes_of_a_protocol_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        parse_protocol(
            {
                "limt": 3,
                "attacks": [{"name": "pgd", "stpes": 3}, "autoatack"],
                "samples": {"samplers": ["rcs", {"name": "sgld", "noize": 1}], "metrics": ["fit"]},
                "density": {"bins": 0, "outside": ["noise", "digit"]},
                "curve": {"attack": {"step": 1}},
            }
        )
    found = {".".join(place): text for place, text in error.value.problems}
    assert set(found) == {
        "attacks.0.stpes",
        "attacks.1.name",
        "samples.samplers.1.noize",
        "samples.metrics.0.name",
        "density.bins",
        "density.outside.1.name",
        "curve.attack.step",
        "limt",
    }
    assert found["attacks.1.name"].endswith("did you mean 'autoattack'?")
    assert found["samples.samplers.1.noize"] == "unknown key; did you mean 'noise'?"
    assert found["density.bins"] == "input should be greater than or equal to 1, got 0"


def test_a_validator_may_raise_wrong_settings_of_its_own():
    class Pair(Settings):
        first: Threat
        second: ThreatChange

        @model_validator(mode="after")
        def _fit(self):
            self.second.over(self.first)
            return self

    class Outer(Settings):
        pair: Pair

    values = {"pair": {"first": {"norm": "linf", "eps": 1}, "second": {"norm": "l2"}}}
    with pytest.raises(ConfigError, match=r"^pair\.eps: give it too"):
        Outer.parse(values)
    with pytest.raises(ValidationError, match=r"pair\.eps: give it too"):
        Outer(**values)


def test_a_message_lists_so_many_mistakes_and_counts_the_rest():
    with pytest.raises(ConfigError) as error:
        experiment(**{f"key{number}": 1 for number in range(50)})
    assert len(error.value.problems) == 50 and str(error.value).endswith("; and 30 more")


def test_what_depends_on_other_choices_is_filled_in():
    assert experiment().threat == Threat(norm="linf", eps=0.125)
    assert experiment(threat="l2 1/2").threat == Threat(norm="l2", eps=0.5)
    assert experiment(data={"name": "mnist"}).threat.eps == 0.3
    assert experiment(data="cifar10").threat.radius == "8/255"
    assert experiment(data="cifar10").data.flip
    assert [experiment(method=name).select for name in ("standard", "at", "trades")] == [
        "clean",
        "robust",
        "robust",
    ]
    assert experiment(select="last", threat={"eps": "4/255"}).threat.eps == 4 / 255
    assert experiment(threat={"norm": "linf"}).threat == experiment().threat
    with pytest.raises(ConfigError, match=r"threat\.eps: give it too, since the norm is not linf"):
        experiment(threat={"norm": "l2"})


def test_a_resolved_config_reads_back_as_itself(tmp_path):
    first = experiment(method={"name": "trades", "beta": 3, "negatives": {"noise": "1/1000"}})
    (tmp_path / "config.yaml").write_text(to_yaml(first.dump()))
    second = load_experiment(tmp_path / "config.yaml")
    assert second == first and second.dump() == first.dump()
    assert second.method.negatives.noise == 0.001


@pytest.mark.parametrize("registry", [methods, models, datasets], ids=lambda r: r.kind)
def test_every_registered_name_leads_to_its_class(registry: Registry):
    for name in registry.names():
        assert registry.find(name).name == name


def test_overrides_reach_inside_and_leave_the_original_alone():
    values = override(
        TINY, ["method.negatives.eps=1", "threat.eps=8/255", "data.crop=1", "ema=1e-3"]
    )
    assert values["method"]["negatives"] == {"steps": 3, "eps": 1}
    assert values["data"] == {"name": "digits", "crop": 1}
    assert values["ema"] == 0.001 and TINY["data"] == "digits"
    for wrong in ("epochs", "=3", ".a=3", "epochs.x=3"):
        with pytest.raises(ConfigError):
            parse_experiment(override(TINY, [wrong]), "test")


def test_yaml_is_1_2_strict_and_without_code(tmp_path):
    assert parse_yaml("[1e-3, no, 8/255]", "x") == [0.001, "no", "8/255"]
    wrong = {
        "a: 1\na: 2": "line 2.*duplicate",
        "a: [1": "not valid YAML",
        "a: !!python/object/apply:os.system [ls]": "tag",
        "- 1": "expected a mapping",
        "1: 2": "expected a mapping",
        "": "expected a mapping",
    }
    for text, message in wrong.items():
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(CembenchError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")


@given(st.integers(0, 999), st.integers(1, 999))
def test_fractions_are_numbers(top, bottom):
    assert fraction(f"{top}/{bottom}") == top / bottom
    assert fraction(f" {top} / {bottom} ") == top / bottom


plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8)
)
keys = st.sampled_from(
    [
        "name",
        "data",
        "model",
        "method",
        "negatives",
        "eps",
        "threat",
        "steps",
        "lr",
        "optimizer",
        "x",
    ]
)
values = st.recursive(
    plain | st.sampled_from(["at", "digits", "small_cnn", "pgd", "8/255"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(Experiment.model_fields)), values, max_size=5))
def test_any_config_is_read_or_refused_by_name(config):
    try:
        assert isinstance(parse_experiment(config, "test"), Experiment)
    except ConfigError as error:
        assert str(error).startswith("test: ")


def test_spoilt_configurations_are_read_or_refused_in_one_line():
    found = fuzz_configs(60, seed=0)
    assert found.total() - found["slow"] == 60


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_many_spoilt_configurations_are_read_or_refused_in_one_line(seed):
    print(found := fuzz_configs(10_000, seed))
    assert found.total() - found["slow"] == 10_000


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.booleans())
def test_any_text_comes_back_from_yaml(text, flow):
    long = {"k": text, "l": ["x " * 38 + text] * 2}
    assert parse_yaml((in_line if flow else to_yaml)(long), "x") == long


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"epochs": 10**18}, "epochs"),
        ({"optimizer": {"lr": 1e308}}, r"optimizer\.lr"),
        ({"optimizer": {"lr": 1e-320}}, r"optimizer\.lr"),
        ({"schedule": {"name": "multistep", "gamma": 1e30}}, r"schedule\.gamma"),
        ({"validation": {"steps": 10**12}}, r"validation\.steps"),
        ({"method": {"name": "jem", "negatives": {"name": "sgld", "noise": 1e300}}}, "noise"),
    ],
)
def test_numbers_that_no_run_could_use_are_refused(changes, key):
    with pytest.raises(ConfigError, match=rf"{key}: (give|input should be less)"):
        experiment(**changes)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "constant"}, [1, 1, 1, 1, 1]),
        ({"name": "cosine"}, [1, 0.8535534, 0.5, 0.1464466, 0]),
        ({"name": "one-cycle", "peak": 0.5}, [0, 0.5, 1, 0.5, 0]),
        ({"name": "multistep", "milestones": [3, 6], "gamma": 0.1}, [1, 1, 0.1, 0.01, 0.01]),
    ],
)
def test_learning_rates_follow_their_schedule(schedule, expected):
    factor = learning_rate_factor(experiment(schedule=schedule).schedule, 8)
    assert [factor(epoch) for epoch in (0, 2, 4, 6, 8)] == pytest.approx(expected)


def test_radii_are_written_as_people_write_them():
    assert (
        str(Threat(norm="linf", eps=8 / 255)) == "linf-8/255"
        and Threat(norm="linf", eps=8 / 255).slug == "linf-8_255"
    )
    assert (
        str(Threat(norm="linf", eps=0.125)) == "linf-0.125"
        and str(Threat(norm="l2", eps=0.5)) == "l2-0.5"
    )
    assert str(Threat(norm="linf", eps=0.0)) == "linf-0"


def test_shipped_configs_are_valid(monkeypatch):
    import runpy
    from pathlib import Path

    from cembench.evaluation.protocol import load_protocol
    from cembench.suites.suite import load_suite

    configs = Path(__file__).parents[2] / "configs"
    monkeypatch.setattr(methods, "_targets", dict(methods._targets))
    runpy.run_path(str(configs / "studies" / "ours.py"))  # which registers its method
    for path in sorted(configs.rglob("*.yaml")):
        keys = read_yaml(path).keys()
        if "experiments" in keys:
            assert load_suite(path)[0]
        elif keys & {"attacks", "samples"}:
            assert load_protocol(str(path))
        else:
            assert load_experiment(path)
