"""Devices by name, on a machine with any GPUs."""

import pytest
import torch

from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that torch sees so many GPUs of CUDA, and none of Apple."""

    def see(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return see


@pytest.mark.parametrize(
    ("count", "name", "picked"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda"),
        (2, "cuda", "cuda"),
        (2, "cuda:1", "cuda:1"),
    ],
)
def test_a_device_that_is_there(gpus, count, name, picked):
    gpus(count)
    assert pick_device(name) == picked


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        (0, "cuda", "device cuda: torch sees no GPU; use cpu"),
        (0, "cuda:1", "device cuda:1: torch sees no GPU"),
        (2, "cuda:2", "device cuda:2: torch sees cuda:0 to cuda:1"),
        (2, "mps", "no GPU of Apple"),
        (2, "gpu", "give auto, cpu, cuda, cuda:1 or mps"),
        (2, "cuda:x", "give auto, cpu"),
    ],
)
def test_a_device_that_is_not(gpus, count, name, message):
    gpus(count)
    with pytest.raises(CembenchError, match=message):
        pick_device(name)


def test_apples_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == "mps"


def test_the_command_line_says_it_in_a_line(cembench, trained):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    refused = cembench("eval", trained, "--device", "cuda:1")
    assert refused.code == 2 and "device cuda:1: torch sees no GPU" in refused.err
    assert len(refused.err.splitlines()) == 1
    unknown = cembench("eval", trained, "--device", "gpu")
    assert unknown.code == 2 and "device gpu: give auto, cpu" in unknown.err
