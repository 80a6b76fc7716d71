"""Functions as networks: attacked by gradients where autograd finds them, else without."""

import threading

import pytest
import torch

import cembench as cb
from cembench.util.errors import CembenchError
from tests.conftest import Linear, images

NET = Linear(64, 10)
X = (images(24) * 255).byte()
Y = NET(X.float() / 255).argmax(1)
STAGES = ("apgd-ce", "apgd-t", "fab-t")
ONE = {"name": "pgd", "steps": 1}
GIVEN = {"threat": "linf 8/255", "trust_pixels": True}


def as_arrays(x):
    return NET(x.detach()).detach().numpy()


def as_numpy(x):
    return NET(torch.from_numpy(x.numpy())).detach().numpy()


def counts(record):
    return {name: figure.correct for name, figure in record.figures.items()}


class Service:
    """What cannot be copied, since it holds a lock."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, x):
        with self.lock:
            return NET(x)


def test_a_function_around_a_network_is_attacked_as_the_network_is():
    plan = {"attacks": [{"name": "pgd", "steps": 5}], "engine": "plain"}
    expected = cb.evaluate(NET, (X, Y), plan, **GIVEN)
    assert expected.figures["pgd"].accuracy < 1
    for function in (lambda x: NET(x), Service()):
        found = cb.evaluate(function, (X, Y), plan, **GIVEN)
        assert counts(found) == counts(expected) and not found.not_applicable
    assert found.run == "Service"
    fast = cb.evaluate(Service(), (X, Y), {**plan, "engine": "fast"}, **GIVEN)
    assert fast.figures["clean"].accuracy == 1


@pytest.mark.parametrize("function", [as_arrays, as_numpy])
def test_a_black_box_is_attacked_without_gradients(function):
    plain = {"attacks": [{"name": "pgd", "steps": 2}, "autoattack-fast"]}
    found = cb.evaluate(function, (X[:8], Y[:8]), plain, **GIVEN)
    assert found.run == function.__name__ and found.error is None
    assert found.not_applicable == ["pgd", *[f"autoattack-fast {s}" for s in STAGES]]
    assert 0 < found.figures["autoattack-fast"].accuracy < 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: NET(x).argmax(1), r"the model returned \(1,\), expected 1×\d+ logits"),
        (lambda x: NET(x).tolist(), r"the model returned list, expected 1×\d+ logits"),
        (lambda x: 1 / 0, r"model 'function' does not take \(1, 8, 8\): division by zero"),
        (Linear, "a type is no torch.nn.Module, function, checkpoint or run folder"),
        (5, "a int is no torch.nn.Module, function"),
    ],
)
def test_what_is_no_network_is_said_in_one_line(function, words):
    with pytest.raises(CembenchError, match=words) as error:
        cb.evaluate(function, (X, Y), [ONE], **GIVEN)
    assert "\n" not in str(error.value)


def test_attacks_stand_in_place_of_a_protocol():
    listed = cb.evaluate(NET, (X, Y), ["pgd"], **GIVEN)
    for attacks in ("pgd", ["pgd"]):
        found = cb.evaluate(NET, (X, Y), attacks=attacks, **GIVEN)
        assert counts(found) == counts(listed)
    with pytest.raises(CembenchError, match="attacks: the protocol has its own"):
        cb.evaluate(NET, (X, Y), "standard", attacks="pgd", **GIVEN)
