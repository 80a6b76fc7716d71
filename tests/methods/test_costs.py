"""The cost of a step is the number of images through which gradients go, counted one by one."""

from dataclasses import replace

import pytest
from torch import nn

from cembench.methods import methods
from tests.conftest import conv_net, images, labels
from tests.methods.test_methods import context

FEW = {"steps": 3}
OPTIONS = {
    "jem": {"negatives": {"name": "sgld", **FEW}, "own_batch": True},
    "ratio": {"negatives": FEW, "contrast": {"name": "confidence", "start": "noise", **FEW}},
}
NAMES = [name for name in methods.names() if methods.find(name).labels == "all"]
TRAINED = [name for name in NAMES if methods.find(name).trainable]


class Counting(nn.Module):
    """A network that counts the images whose outputs a gradient arrives at."""

    def __init__(self, net):
        super().__init__()
        self.net, self.count = net, 0

    def forward(self, x):
        out = self.net(x)
        if out.requires_grad:
            out.register_hook(self.add)
        return out

    def add(self, gradient):
        self.count += len(gradient)


THREATS = [{"norm": "linf", "eps": 0.1}, {"norm": "l2", "eps": 0.5}]
SEVERAL = ["max", "avg", "sat", "e-at"]
ATTACKED = [name for name in TRAINED if methods.find(name).attacks]
CASES = [
    *[(name, weights, None) for name in TRAINED for weights in (None, "awp", "sam")],
    *[(name, "awp", rule) for name in ATTACKED for rule in SEVERAL],
]


@pytest.mark.parametrize(("name", "weights", "rule"), CASES)
def test_a_step_costs_what_it_computes(name, weights, rule):
    several = {"name": rule, "threats": THREATS, "attack": FEW}
    options = OPTIONS.get(name, {}) | ({} if rule is None else {"negatives": several})
    method = methods.parse({"name": name, "weights": weights, **options})
    count = len(method.branches)
    x, y = images().repeat(count, 1, 1, 1), labels().repeat(count)
    at = replace(context(), epoch=10, memory={"steps": 4})
    model = Counting(conv_net())
    method.objective(model, x, y, at)[0].backward()
    assert model.count == method.cost(at) * len(labels())
