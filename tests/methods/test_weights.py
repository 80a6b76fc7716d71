"""Perturbed weights: AWP and SAM around every method."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from cembench.methods import methods
from cembench.methods.perturbation import perturbations
from tests.conftest import images, labels
from tests.methods.test_methods import SUPERVISED, context, deterministic

TRAINABLE = [name for name in methods.names() if methods.find(name).trainable]


def gradients(method, epoch=0, dtype=torch.float32):
    model = deterministic().to(dtype).train()
    count = len(method.branches)
    x, y = images().to(dtype).repeat(count, 1, 1, 1), labels().repeat(count)
    torch.manual_seed(0)
    given = replace(context(), epoch=epoch)
    loss, _ = method.objective(model, x, y, given)
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()], list(model.buffers())


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("weights", [{"name": "awp", "gamma": 0}, {"name": "sam", "rho": 0}])
def test_without_a_perturbation_every_method_is_itself_bit_for_bit(name, weights):
    for epoch in (0, 10):
        loss, found, buffers = gradients(methods.parse(name), epoch)
        again, moved, same = gradients(methods.parse({"name": name, "weights": weights}), epoch)
        assert torch.equal(loss, again)
        assert all(torch.equal(a, b) for a, b in zip(found, moved, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(buffers, same, strict=True))


@pytest.mark.parametrize("name", TRAINABLE)
def test_perturbed_weights_cost_the_gradients_that_they_climb(name):
    plain = methods.parse(name)
    awp = methods.parse({"name": name, "weights": {"name": "awp", "warmup": 2}})
    early, late = context(), replace(context(), epoch=20, memory={"steps": 7})
    assert awp.cost(early) == plain.cost(early)
    assert awp.cost(late) == plain.cost(late) + awp.climbed_cost(late) > plain.cost(late)


@pytest.mark.parametrize("name", ["standard", "at"])
def test_awp_is_the_gradient_at_the_weights_that_raise_the_loss(name):
    method = methods.parse({"name": name, "weights": {"name": "awp", "gamma": 0.3}})
    loss, found, _ = gradients(method, dtype=torch.float64)
    model = deterministic().double().train()
    key = "attacked" if name == "at" else "x"
    drawn = method.draw(model, images().double(), labels(), context())[key]
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(cross_entropy(model(drawn), labels()), list(named.values()))
    with torch.no_grad():
        for p, g in zip(named.values(), grads, strict=True):
            if p.ndim > 1:
                p += 0.3 * p.norm() * g / g.norm()
    expected = cross_entropy(model(drawn), labels())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    for p, g in zip(model.parameters(), found, strict=True):
        assert torch.allclose(p.grad, g, atol=1e-10)


def test_sam_moves_all_weights_together_by_rho():
    gradient = {"a": torch.randn(3, 4), "b": torch.randn(5)}
    zero = {name: torch.zeros_like(one) for name, one in gradient.items()}
    moved = perturbations.parse({"name": "sam", "rho": 2.0}).deltas(zero, gradient)
    flat = torch.cat([one.flatten() for one in moved.values()])
    whole = torch.cat([one.flatten() for one in gradient.values()])
    assert torch.allclose(flat, 2 * whole / whole.norm())


@pytest.mark.parametrize("name", SUPERVISED)
def test_the_loss_is_a_function_of_weights_and_drawn_images_alone(name):
    method, model = methods.parse(name), deterministic().eval()
    count = len(method.branches)
    x, y = images().repeat(count, 1, 1, 1), labels().repeat(count)
    given = replace(context(), epoch=20, memory={"steps": 2})
    drawn = method.draw(model, x, y, given)
    state = given.generator.get_state()
    first, second = (method.loss(model, drawn, y, given)[0] for _ in range(2))
    assert torch.equal(first, second) and torch.equal(given.generator.get_state(), state)
