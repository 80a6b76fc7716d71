"""Checkpoints of strangers: what they may run, build, read and say. And radii in bytes."""

import sys

import pytest
import torch

import cembench as cb
import cembench.models.checkpoint as checkpoint_module
from cembench.models.checkpoint import load_checkpoint
from cembench.models.factory import Factory
from cembench.models.networks import SmallNet
from cembench.util import registry
from cembench.util.errors import CembenchError, ModelError
from tests.support.checkpoints import rewrite
from tests.support.fuzz_checkpoints import fuzz_checkpoints

PACKAGE = """
import os, subprocess
from functools import lru_cache, partial
from torch import nn
from torch.nn import Sequential
from .nets import Net, deep, wanting
from .others import other

def own():
    return Net()

ready, cached, there = partial(own), lru_cache(own), Net()
"""
NETS = """
import torch
from torch import nn
from zoo.others import other

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))

    @classmethod
    def made(cls):
        return cls()

    @staticmethod
    def loose():
        return Net()

def deep(depth):
    return nn.Sequential(*(nn.Linear(1, 1) for _ in range(depth)))

def wanting(depth):
    widths = torch.full((1,), 2048).tolist() * 2
    return nn.Sequential(*(nn.Linear(*widths) for _ in range(depth)))
"""
OTHERS = """
from torch import nn

def other():
    return nn.Linear(64, 10)
"""


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A user's package `zoo`, that nobody named yet."""
    (tmp_path / "code" / "zoo").mkdir(parents=True)
    for name, text in (("__init__", PACKAGE), ("nets", NETS), ("others", OTHERS)):
        (tmp_path / "code" / "zoo" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    for known, of_this_test in (("_trusted", set()), ("_named", {}), ("_pending", [])):
        monkeypatch.setattr(registry, known, of_this_test)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["own", "other", "Net", "Net.made", "Net.loose", "nets:deep"])
def test_what_a_trusted_package_defines_is_called(zoo, name):
    cb.add_plugin("zoo")
    target = f"zoo.{name}" if ":" in name else f"zoo:{name}"
    args = {"depth": 2} if "deep" in name else {}
    assert isinstance(Factory(target=target, args=args).build((1, 8, 8), 10), torch.nn.Module)


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "os", "subprocess.Popen", "nn.Linear", "Sequential", "partial"),
        *("ready", "ready.func", "cached", "there", "there.made", "there.__call__"),
        *("own.__globals__", "own.__globals__.get", "own.__code__", "own.__class__"),
        *("Net.__class__", "Net.__base__", "Net.__subclasses__", "Net.__init__.__globals__"),
        *("Net.load_state_dict", "Net.__mro__", "Net.made.__func__", "__builtins__", "__loader__"),
        *("__dict__.get", "nets.nn.Linear", "nets"),
    ],
)
def test_what_a_trusted_package_only_imports_is_never_called(zoo, name):
    cb.add_plugin("zoo")
    with pytest.raises(ModelError, match=r"not a function or class that zoo defines|zoo has no '"):
        Factory(target=f"zoo:{name}").build((1, 8, 8), 10)


def test_a_module_is_trusted_without_the_package_around_it(zoo):
    cb.add_plugin("zoo.nets")
    assert Factory(target="zoo.nets:Net").build((1, 8, 8), 10)
    with pytest.raises(ModelError, match=r"'other' is a function, not a .* zoo.nets defines"):
        Factory(target="zoo.nets:other").build((1, 8, 8), 10)
    with pytest.raises(CembenchError, match=r"if you trust it, add --plugin zoo\.others"):
        Factory(target="zoo.others:other").build((1, 8, 8), 10)


def test_a_checkpoint_does_not_reach_the_system_through_a_trusted_module(
    cembench, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "_trusted", set())
    args = {"command": f"touch {tmp_path / 'boom'}"}
    for path in ("torch.serialization.os.system", "nn.Module", "F.relu"):
        target = f"pyautoattack.examples.resnet:{path}"
        model = {"name": "factory", "target": target, "args": args}
        file = rewrite(trained, tmp_path / "m.safetensors", lambda v, m=model: v.update(model=m))
        result = cembench("eval", file, "--plugin", "pyautoattack.examples.resnet")
        assert result.code == 2 and str(file) in result.err and "defines itself" in result.err
    assert not (tmp_path / "boom").exists()


ENORMOUS = {
    "wide": ({"name": "small_cnn", "width": 1024}, r"size mismatch for net.body.0.weight"),
    "deep": ({"name": "wide_resnet", "depth": 994, "width": 100}, "far more than the 28 tensors"),
    "torchvision": (
        {"name": "torchvision", "arch": "wide_resnet101_2"},
        "size mismatch|the file has no",
    ),
    "timm": ({"name": "timm", "arch": "vit_giant_patch14_224"}, "size mismatch|the file has no"),
    "factory": ({"name": "factory", "target": "zoo:deep", "args": {"depth": 10**9}}, "far more"),
}


@pytest.mark.parametrize("name", ENORMOUS)
def test_an_enormous_architecture_is_refused_before_it_is_built(
    cembench, trained, tmp_path, monkeypatch, zoo, name
):
    model, message = ENORMOUS[name]
    cb.add_plugin("zoo")

    def built(_):
        raise AssertionError("built with memory")

    monkeypatch.setattr(checkpoint_module, "build_network", built)
    file = rewrite(trained, tmp_path / "m.safetensors", lambda values: values.update(model=model))
    with pytest.raises(CembenchError, match=f"m.safetensors: does not fit .*({message})"):
        load_checkpoint(file)
    assert cembench("show", file).code == 0


def test_a_network_that_needs_values_is_stopped_when_it_takes_more_than_its_weights(
    trained, tmp_path, zoo
):
    """`wanting` cannot be built on the meta device: it is built, a quarter of a gigabyte of it."""
    cb.add_plugin("zoo")
    model = {"name": "factory", "target": "zoo:wanting", "args": {"depth": 10**9}}
    file = rewrite(trained, tmp_path / "m.safetensors", lambda values: values.update(model=model))
    with pytest.raises(CembenchError, match="far more than the 28 tensors in the file"):
        load_checkpoint(file)


def test_a_network_for_large_images_is_loaded_without_computing_one(
    trained, encoder, tmp_path, monkeypatch
):
    devices = []
    forward = SmallNet.features

    def noted(self, x):
        devices.append(x.device.type)
        return forward(self, x)

    monkeypatch.setattr(SmallNet, "features", noted)
    for number, run in enumerate((trained, encoder)):
        file = tmp_path / f"{number}.safetensors"
        rewrite(run, file, lambda values: values.update(shape=[1, 7000, 7000]))
        assert load_checkpoint(file)[1].shape == [1, 7000, 7000]
    assert set(devices) == {"meta"}


WRONG = [
    ({"threat": {"norm": "linf", "eps": 1e300}}, "threat.eps: give 0, or a number between"),
    ({"threat": {"norm": "linf", "eps": -0.1}}, "threat.eps: input should be greater"),
    ({"threat": {"norm": "linf", "eps": float("nan")}}, "threat.eps: input should be a finite"),
    ({"seed": -1}, "seed: input should be greater"),
    ({"epoch": -1, "gradients": -1, "divergences": -1}, "epoch: .*gradients: .*divergences: "),
    ({"seed": 2**64}, "seed: input should be less"),
    ({"config": [1]}, "config: input should be a valid dictionary"),
    ({"config": {"validation": 3}}, "config.validation: input should be a valid dictionary"),
    ({"config": {"validation": {"fraction": 1}}}, "config.validation.fraction: input should be"),
    ({"config": {"pretrained": [1]}}, "config.pretrained: input should be a valid dictionary"),
    ({"config": {"epochs": "many"}}, "config.epochs: input should be a valid integer"),
    ({"config": {"a": {"b": "\ud800"}}}, r"config.a.b: no text: '\\ud800'"),
    ({"config": {"a": [[[[[[[[1]]]]]]]] * 2}}, ""),
    ({"std": [0.0]}, "std.0: input should be greater than 0"),
    ({"std": [float("inf")]}, "std.0: input should be a finite"),
    ({"mean": [0.1, 0.2]}, "mean: 2 values for 1 channels"),
    ({"classes": ["a", "b", "a"]}, "classes: 'a' is there 2 times"),
    ({"shape": [1, 10**9, 10**9]}, "shape: .* values, of 50,331,648 at most"),
    ({"method": "a\x1b[2J"}, "method: string should match"),
    ({"kind": "encoder"}, "kind: no encoder, since its head says otherwise"),
    ({"format": 99}, "format version 99; this cembench reads versions 1 to 2"),
    ({"format": 0}, "format version 0; this cembench reads versions 1 to 2"),
    ({"format": "2"}, 'format version "2" is not a whole number'),
    ({"format": True}, "format version true is not a whole number"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_a_checkpoint_cannot_say_is_refused_by_file_and_key(
    cembench, trained, tmp_path, changes, message
):
    file = rewrite(trained, tmp_path / "m.safetensors", lambda values: values.update(changes))
    for command in ("show", "eval"):
        if not message:
            assert cembench("show", file).code == 0
            continue
        result = cembench(command, file)
        assert result.code == 2 and len(result.err.splitlines()) == 1 and not result.out
        assert str(file) in result.err and "unexpected" not in result.err
        with pytest.raises(CembenchError, match=message):
            load_checkpoint(file)


def test_deep_settings_are_refused_by_key(trained, tmp_path):
    deep = []
    for _ in range(200):
        deep = [deep]
    file = tmp_path / "m.safetensors"
    rewrite(trained, file, lambda values: values.update(config={"a": deep}))
    with pytest.raises(CembenchError, match=r"config\.a\.0.*nested more than 32 levels"):
        load_checkpoint(file)


def test_spoilt_checkpoints_are_read_or_refused_by_name(tmp_path):
    assert fuzz_checkpoints(60, 0, tmp_path).total() == 60


@pytest.mark.slow
def test_thousands_of_spoilt_checkpoints_are_read_or_refused_by_name(tmp_path):
    outcomes = fuzz_checkpoints(2000, 1, tmp_path)
    assert sum(times for kind, times in outcomes.items() if kind.endswith("read")) > 20
