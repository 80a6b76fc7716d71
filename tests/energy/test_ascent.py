"""Gradient ascent, energies, and rounding to 8 bits."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from cembench import energy
from cembench.energy import potentials
from cembench.energy.ascent import ascend, to_bytes
from cembench.energy.norms import Linf, unit
from cembench.energy.threat import Threat
from tests.conftest import Linear, conv_net, images, labels


def test_one_step_of_each_direction_is_the_formula():
    model, x, y = Linear(64, 10), images(4), labels(4)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), y, reduction="sum"), leaf)
    directions = {"raw": gradient, "sign": gradient.sign(), "l2": unit(gradient)}
    for name, step in directions.items():
        moved = ascend(
            model, potentials.cross_entropy, x, y, steps=1, step_size=0.1, direction=name
        )
        assert torch.allclose(moved, x + 0.1 * step, atol=1e-6)


def test_noise_has_the_given_spread_and_comes_from_the_generator():
    def walk(seed):
        generator = torch.Generator().manual_seed(seed)
        flat = torch.zeros(2000, 1, 2, 2)
        constant = lambda x: x.flatten(1) * 0  # noqa: E731
        return ascend(
            constant,
            lambda out, target: out.sum(1),
            flat,
            torch.zeros(2000),
            steps=4,
            step_size=1.0,
            noise=0.5,
            generator=generator,
        )

    assert walk(0).std().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(walk(0), walk(0)) and not torch.equal(walk(0), walk(1))


def test_rows_that_are_done_stay_where_they_were_and_the_others_are_not_disturbed():
    model, x, y = conv_net().eval(), images(6), labels(6)
    seen = []

    def visit(step, rows, points, out):
        seen.append(rows.tolist())
        return torch.tensor([row in (1, 4) and step == 2 for row in rows.tolist()])

    options = {"steps": 5, "step_size": 0.02, "direction": "sign", "ball": Linf(0.1), "centre": x}
    straight = ascend(model, potentials.cross_entropy, x, y, **options)
    left = ascend(model, potentials.cross_entropy, x, y, visit=visit, **options)
    two = ascend(model, potentials.cross_entropy, x, y, **{**options, "steps": 2})
    others = [0, 2, 3, 5]
    assert torch.allclose(left[others], straight[others], atol=1e-6)
    assert torch.allclose(left[[1, 4]], two[[1, 4]], atol=1e-6)
    assert seen[2] == [0, 1, 2, 3, 4, 5] and seen[3] == others and len(seen) == 6


def test_zero_gradient_moves_nothing():
    assert torch.equal(unit(torch.zeros(2, 1, 3, 3)), torch.zeros(2, 1, 3, 3))


def test_energies_fit_together():
    logits, y = torch.randn(7, 5, dtype=torch.float64), labels(7, 5)
    conditional = energy.conditional(logits, y)
    assert torch.allclose(conditional, energy.joint(logits, y) - energy.marginal(logits))
    assert torch.allclose(-conditional, cross_entropy(logits, y, reduction="none"))
    assert torch.allclose(potentials.cross_entropy(logits, y).double(), -conditional, atol=1e-5)


def test_large_logits_hide_no_gradient_of_the_cross_entropy():
    near = torch.tensor([[9.0, 0.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([0])
    slopes = []
    for logits in (near, (near + 1000).float()):
        leaf = logits.requires_grad_()
        value = -energy.conditional(leaf, y) if leaf is near else potentials.cross_entropy(leaf, y)
        slopes.append(torch.autograd.grad(value.sum(), leaf)[0])
    assert torch.allclose(slopes[0].float(), slopes[1], rtol=1e-3, atol=0)


def test_divergence_is_zero_at_the_clean_image_and_matches_torch():
    clean, moved = torch.randn(7, 5), torch.randn(7, 5)
    target = clean.log_softmax(1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=clean), torch.distributions.Categorical(logits=moved)
    )
    assert torch.allclose(potentials.divergence(moved, target), expected, atol=1e-6)
    assert potentials.divergence(clean, target).abs().max() < 1e-6


@pytest.mark.parametrize(
    "threat",
    [Threat(norm="linf", eps=8 / 255), Threat(norm="linf", eps=0.1), Threat(norm="l2", eps=0.5)],
)
@pytest.mark.parametrize("levels", [255, 16])
def test_bytes_stay_in_the_ball_around_the_rounded_image(threat, levels):
    ball = threat.ball
    x = (images(32) * levels).round() / levels
    moved = ball.uniform(x, torch.Generator().manual_seed(0))
    extreme = ball.project(x + torch.randn(x.shape).sign(), x)
    for proposed in (moved, extreme, x):
        grid = (x * 255).round() / 255
        rounded = to_bytes(proposed, x, ball)
        assert torch.allclose(rounded * 255, (rounded * 255).round(), atol=1e-4)
        assert ball.size(rounded - grid).max() <= ball.eps + 1e-6
        assert rounded.min() >= 0 and rounded.max() <= 1


def test_bytes_keep_a_whole_number_of_levels():
    x = torch.arange(256).reshape(1, 1, 16, 16) / 255
    moved = Linf(8 / 255).project(x + 1, x)
    assert torch.equal((to_bytes(moved, x, Linf(8 / 255)) * 255).round(), (moved * 255).round())
    assert math.isclose(float((moved - x).max()), 8 / 255, abs_tol=1e-6)
