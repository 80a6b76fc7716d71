"""Norms: what every one of the table must do, and that no other name is taken for one of them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from cembench.attacks.apgd import apgd, targeted_apgd
from cembench.attacks.fab import targeted_fab
from cembench.attacks.square import square
from cembench.attacks.state import AttackState
from cembench.attacks.verdict import verify
from cembench.energy.ascent import DIRECTIONS, ascend, to_bytes
from cembench.energy.norms import L2, NORMS, Ball, by_norm, unit
from cembench.energy.threat import Threat, ThreatChange
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.samplers import samplers
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.rng import generator_of
from tests.conftest import NOTHING, Linear, experiment, images

EPS = {"linf": 0.1, "l2": 0.7}
GENERATOR = generator_of(0, "cpu")
every_norm = pytest.mark.parametrize("norm", NORMS)
convex = pytest.mark.parametrize("norm", [norm for norm in NORMS if norm != "l0"])


def ball_of(norm):
    """A ball that holds changes of a tenth of the grey range in an 8×8 image."""
    whole = NORMS[norm].diameter(64)
    return NORMS[norm](EPS.get(norm, 0.1 * whole))


def noise(count=64, seed=1):
    return torch.randn(count, 1, 8, 8, generator=generator_of(seed, "cpu"))


@every_norm
def test_the_table_has_norms_under_their_names(norm):
    assert NORMS[norm].name == norm and str(Threat(norm=norm, eps=0.5)).startswith(norm)
    assert type(Threat(norm=norm, eps=0.5).ball) is NORMS[norm]
    assert Threat.parse({"norm": norm, "eps": "1/2"}).ball == NORMS[norm](0.5)


@every_norm
def test_sizes_are_those_of_torch(norm):
    delta = noise().double()
    order = NORMS[norm].order
    expected = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    torch.testing.assert_close(NORMS[norm](0.1).size(delta), expected)


@every_norm
@pytest.mark.parametrize("eps", [0.0, 0.1, 3.0])
def test_a_projection_for_many_steps_is_that_of_one_to_the_last_bit(norm, eps):
    ball, x, moved = NORMS[norm](eps), images(64), images(64) + 3 * noise()
    assert torch.equal(ball.projection(x)(moved), ball.project(moved, x))
    if norm == "linf":
        edges = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
        assert torch.equal(ball.project(moved, x), moved.maximum(edges[0]).minimum(edges[1]))


@every_norm
@pytest.mark.parametrize("empty", [False, True], ids=["", "eps=0"])
def test_projections_are_inside_and_idempotent(norm, empty):
    ball, x = NORMS[norm](0.0) if empty else ball_of(norm), images(64)
    near = ball.project(x + 3 * noise(), x)
    assert ball.size(near - x).max() <= ball.eps + ball.tolerance / 10
    assert near.min() >= 0 and near.max() <= 1
    torch.testing.assert_close(ball.project(near, x), near, atol=1e-6, rtol=0)
    assert torch.equal(ball.project(x, x), x)


@convex
def test_projections_are_the_nearest_points_of_the_ball(norm):
    """No feasible z lies closer: ⟨x − y, z − y⟩ ≤ 0 at the projection y of x onto a convex set."""
    centre = torch.full((64, 1, 8, 8), 0.5)
    ball = NORMS[norm](0.4)  # in the middle of the box, which cuts none of it
    far = centre + noise()
    y = ball.project(far, centre)
    for seed in range(20):
        z = ball.uniform(centre, generator_of(seed, "cpu"))
        assert ((far - y) * (z - y)).flatten(1).sum(1).max() <= 1e-4


@every_norm
def test_uniform_draws_lie_inside(norm):
    ball, x = ball_of(norm), images(64)
    drawn = ball.uniform(x, generator_of(0, "cpu"))
    assert ball.size(drawn - x).max() <= ball.eps + ball.tolerance
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert torch.equal(drawn, ball.uniform(x, generator_of(0, "cpu")))


@convex
@pytest.mark.parametrize("dimensions", [2, 4])
def test_uniform_draws_fill_the_ball(norm, dimensions):
    """P(size ≤ r) = (r/ε)^d for a uniform draw in d dimensions, in every norm."""
    centre = torch.full((4000, 1, 1, dimensions), 0.5)
    ball = NORMS[norm](0.1)
    size = ball.size(ball.uniform(centre, generator_of(0, "cpu")) - centre)
    assert size.max() <= 0.1 + 1e-6
    assert (size <= 0.05).float().mean().item() == pytest.approx(0.5**dimensions, abs=0.03)


def test_l1_projections_solve_the_quadratic_program_of_ball_and_box():
    """Croce and Hein, arXiv 2103.01208: the intersection, not one after the other."""
    generator = generator_of(0, "cpu")
    for seed in range(25):
        size = 2 + seed % 6
        centre = torch.rand(1, 1, 1, size, generator=generator).round(decimals=1)
        x = centre + 2 * torch.randn(centre.shape, generator=generator)
        ball = NORMS["l1"](0.4 * size * float(torch.rand(1, generator=generator)))
        expected = nearest(x.flatten().numpy(), centre.flatten().numpy(), ball.eps)
        found = ball.project(x, centre).flatten().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def nearest(x, centre, eps):
    """The quadratic program, by scipy: changes are differences of values that are not negative."""
    at = np.vstack([np.eye(len(x)), -np.eye(len(x))])

    def distance(parts):
        away = centre + parts @ at - x
        return away @ away, 2 * at @ away

    within = {"type": "ineq", "fun": lambda parts: eps - parts.sum()}
    bounds = [(0, room) for room in (*1 - centre, *centre)]
    start = np.zeros(2 * len(x))
    found = minimize(
        distance,
        start,
        jac=True,
        bounds=bounds,
        constraints=within,
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return centre + found.x @ at


@pytest.mark.parametrize("norm", NORMS)
def test_steps_of_every_norm_climb(norm):
    """Ascent of a linear function by the direction of the norm reaches what its ball allows."""
    w, x = noise(8), 0.3 + 0.4 * images(8)
    ball = NORMS[norm](0.1 * NORMS[norm].diameter(64))
    moved = ascend(
        lambda at: (at * w).flatten(1).sum(1),
        lambda out, _: out,
        x,
        torch.zeros(8),
        steps=40,
        step_size=2.5 * ball.eps / 40,
        direction=ball.direction,
        ball=ball,
        centre=x,
    )
    best = torch.stack([ball.uniform(x, generator_of(seed, "cpu")) for seed in range(50)])
    climbed = ((moved - x) * w).flatten(1).sum(1)
    assert (climbed > ((best - x) * w).flatten(2).sum(2).amax(0)).all()
    assert ball.size(moved - x).max() <= ball.eps + ball.tolerance


@convex
def test_surface_draws_lie_inside_and_far_out(norm):
    ball, x = ball_of(norm), 0.3 + 0.4 * images(64)
    drawn = ball.surface(x, generator_of(0, "cpu"))
    size = ball.size(drawn - x)
    assert size.max() <= ball.eps + ball.tolerance and size.median() > 0.8 * ball.eps
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_l0_counts_pixels_and_keeps_the_largest_changes():
    """As Sparse-RS does: a pixel counts once, whatever changes in its channels."""
    x = torch.full((1, 3, 2, 2), 0.5)
    moved = x.clone()
    moved[0, :, 0, 0] += 0.1
    moved[0, 0, 0, 1] += 0.3
    moved[0, 1, 1, 1] -= 0.9  # clipped, so that it changes by 0.5
    for pixels, places in ((0, []), (1, [(1, 1)]), (2.9, [(1, 1), (0, 1)]), (4, None)):
        found = NORMS["l0"](float(pixels)).project(moved, x)
        assert int(NORMS["l0"](1.0).size(found - x)) == min(int(pixels), 3)
        for place in places or []:
            assert torch.equal(found[0, :, *place], moved.clamp(0, 1)[0, :, *place])


@convex
def test_no_step_of_size_one_rises_faster_than_the_steepest(norm):
    gradient, ball = noise(), NORMS[norm](1.0)
    step = DIRECTIONS[ball.direction](gradient, images(64))
    torch.testing.assert_close(ball.size(step), torch.ones(64))
    slope = (gradient * step).flatten(1).sum(1)
    for seed in range(2, 22):
        other = noise(seed=seed)
        if norm == "l1":  # whose step is the steepest of those that change 5 % of the values alike
            other = other.sign() * step.flatten(1)[:, torch.randperm(64)].abs().view_as(other)
        other = other / ball.size(other).reshape(-1, 1, 1, 1)
        assert ((gradient * other).flatten(1).sum(1) <= slope + 1e-4).all()


@every_norm
def test_a_ball_of_the_diameter_holds_every_image(norm):
    x = images(8)
    ball = NORMS[norm](NORMS[norm].diameter(64))
    torch.testing.assert_close(ball.project(1 - x.round(), x.round()), 1 - x.round())
    assert ball.size(torch.ones(1, 1, 8, 8)).item() == pytest.approx(ball.eps)


@every_norm
def test_bytes_stay_in_the_ball_around_the_rounded_image(norm):
    ball, x = ball_of(norm), images(64)
    grid = (x * 255).round() / 255
    rounded = to_bytes(ball.project(x + noise(), x), x, ball)
    assert ball.size(rounded - grid).max() <= ball.eps + ball.tolerance
    assert rounded.min() >= 0 and rounded.max() <= 1


@every_norm
def test_projections_of_large_images_count_as_inside(norm):
    """Float32 rounding of 3×32×32 pixels is within the tolerance of the norm."""
    x = torch.rand(16, 3, 32, 32, generator=generator_of(0, "cpu"))
    whole = NORMS[norm].diameter(3 * 32 * 32)
    ball = NORMS[norm](0.1 * whole)
    moved = ball.project(x + torch.randn(x.shape, generator=generator_of(1, "cpu")), x)
    right = torch.zeros(16, dtype=torch.long)
    verdict = verify(lambda x: torch.eye(2)[1:].expand(len(x), 2), x, moved, right, ball)
    assert verdict.success.all() and verdict.success_8bit.all()


@pytest.mark.parametrize(
    "parse",
    [
        lambda norm: Threat.parse({"norm": norm, "eps": 0.1}),
        lambda norm: ThreatChange.parse({"norm": norm, "eps": 0.1}),
        lambda norm: Protocol.parse({"name": "t", "threat": {"norm": norm}, "attacks": ["pgd"]}),
        lambda norm: load_protocol("quick", [f"threat.norm={norm}", "threat.eps=1"]),
        lambda norm: experiment(threat={"norm": norm, "eps": 0.1}),
        lambda norm: samplers.parse({"name": "rcs", "norm": norm, "eps": 0.1}),
    ],
    ids=["threat", "change", "protocol", "override", "experiment", "sampler"],
)
def test_settings_refuse_unknown_norms(parse):
    with pytest.raises(ConfigError, match=r"norm: give one of linf, l2.*, got 'l3'") as error:
        parse("l3")
    assert "\n" not in str(error.value)


def test_commands_refuse_unknown_norms_in_a_line(cembench, trained):
    small = [part for override in NOTHING[1:] for part in ("--set", override)]
    evaluated = cembench("eval", trained, *small, "--set", "threat.norm=l3")
    named = "threat.norm: give one of linf, l2"
    assert evaluated.code == 2 and named in evaluated.err and evaluated.err.count("\n") == 1
    imported = cembench("import", "--norm", "l3")
    assert imported.code == 2 and "'l3' is not one of 'linf', 'l2'" in imported.err


class L3(Ball):
    """A norm that is in no table, with what a new norm needs and nothing else."""

    name, library_name, order, direction = "l3", "L3", 3.0, "l2"
    steepest, project, uniform = staticmethod(unit), L2.project, L2.uniform


def test_lookups_refuse_unknown_norms():
    with pytest.raises(CembenchError, match="the threat model has no norm 'l3'; known: linf, l2"):
        _ = Threat(norm="l2", eps=0.1).model_copy(update={"norm": "l3"}).ball
    with pytest.raises(CembenchError, match="mine has no norm 'l3'; known: a"):
        by_norm({"a": 1}, "l3", "mine")


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda *args: apgd(*args, generator=GENERATOR), "APGD has no norm 'l3'"),
        (
            lambda *args: targeted_apgd(*args, generator=GENERATOR, max_batch=9),
            "APGD has no norm 'l3'",
        ),
        (
            lambda *args: targeted_fab(*args, max_batch=9),
            "FAB has no norm 'l3'; known: linf, l2",
        ),
        (
            lambda *args: square(*args, GENERATOR, max_batch=9),
            "Square has no norm 'l3'; known: linf, l2",
        ),
    ],
    ids=["apgd", "apgd-t", "fab-t", "square"],
)
def test_attacks_refuse_norms_that_they_have_no_steps_for(attack, message):
    model, x = Linear(64, 10), images(4)
    with pytest.raises(CembenchError, match=message):
        attack(model, AttackState(model, x, model(x).argmax(1), L3(0.1)))


def test_a_verdict_takes_any_norm():
    model, x = Linear(64, 10), images(4)
    y, ball = model(x).argmax(1), L3(0.1)
    moved = ball.project(x + noise(4), x)
    assert (verify(model, x, moved, y, ball).size <= 0.1 + 1e-6).all()


def test_threat_models_need_no_torch():
    code = (
        "import sys; from cembench.energy.threat import Threat; "
        "Threat(norm='l2', eps=1).ball; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
