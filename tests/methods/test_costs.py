"""The cost of a step is the number of images through which gradients go, counted one by one."""

from dataclasses import replace

import pytest
from torch import nn

from cembench.methods import methods
from tests.conftest import conv_net, images, labels
from tests.methods.test_methods import context

FEW = {"steps": 3}
CASES = {
    **{name: {} for name in ("standard", "at", "trades", "cem", "mart", "gkl", "weat", "eb-jdat")},
    "at": {"negatives": FEW},
    "jem": {"negatives": {"name": "sgld", **FEW}, "own_batch": True, "gradient_penalty": 0.0},
    "ratio": {"negatives": FEW, "contrast": {"name": "confidence", "start": "noise", **FEW}},
    "dat": {"negatives": FEW},
}


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


@pytest.mark.parametrize("weights", [None, "awp", "sam"])
@pytest.mark.parametrize("name", CASES)
def test_a_step_costs_what_it_computes(name, weights):
    method = methods.parse({"name": name, "weights": weights, **CASES[name]})
    count = len(method.branches)
    x, y = images().repeat(count, 1, 1, 1), labels().repeat(count)
    at = replace(context(), epoch=10, memory={"steps": 4})
    model = Counting(conv_net())
    method.objective(model, x, y, at)[0].backward()
    assert model.count == method.cost(at) * len(labels())
