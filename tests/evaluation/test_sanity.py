"""Robustness that is an illusion is found out; robustness that is real is left alone."""

import math
from contextlib import contextmanager
from copy import deepcopy

import pandas as pd
import pytest
import torch
from torch import nn

from cembench.attacks.verdict import averaged
from cembench.data import datasets
from cembench.data.split import Split, subset
from cembench.energy.threat import Threat
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measure import target_of
from cembench.evaluation.measures import black_box, consistency
from cembench.evaluation.measures.nearest_first import FEW, GROUP, nearest_first
from cembench.evaluation.measures.robustness import attack_split
from cembench.evaluation.measures.sanity import CHECKS, sanity_checks
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.sections.sanity import SanityCheck, SanityConfig
from cembench.models.checkpoint import load_checkpoint
from cembench.models.engine import Fast
from cembench.reporting.leaderboard import build_boards
from cembench.util.errors import ModelError
from cembench.util.frozen import frozen
from tests.conftest import NOTHING, conv_net, images
from tests.support.records import record

LINF = Threat(norm="linf", eps=0.125)


def checks(model, threat=LINF, passes=1, **plan):
    """The names of the checks that fail, and all rows, on digits."""
    split, _ = subset(datasets.parse("digits").load("test"), 96)
    protocol = Protocol.parse({"name": "test", "sanity": plan, "passes": passes})
    with frozen(model):
        target = target_of(model, 10, protocol, threat)
        rows = sanity_checks(target, split, SanityConfig.parse(plan))
    return {row.name for row in rows if row.verdict == "fail"}, rows


class Before(nn.Module):
    """A network behind a change of its input, or before one of its output."""

    def __init__(self, net, change=None, after=None):
        super().__init__()
        self.net, self.change, self.after = net, change, after

    def forward(self, x):
        out = self.net(x if self.change is None else self.change(x))
        return out if self.after is None else self.after(out)


@pytest.fixture(scope="module")
def robust(trained):
    return load_checkpoint(trained)[0]


@pytest.fixture(scope="module")
def plain():
    """A network trained without any defence, on hard labels."""
    return fitted(lambda x, y: y, 1.0)


def fitted(target, temperature):
    """Train on what `target` says of images, at a temperature (arXiv 1511.04508)."""
    torch.manual_seed(0)
    split = datasets.parse("digits").load("train")
    x, y = split.pixels(), split.labels
    wanted = target(x, y)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(400):
        loss = nn.functional.cross_entropy(model(x) / temperature, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("threat", [LINF, Threat(norm="l2", eps=0.7)], ids=str)
def test_adversarial_training_passes_every_check(robust, threat):
    failed, rows = checks(robust, threat)
    assert failed == set() and {row.verdict for row in rows} == {"pass"}
    assert [row.name for row in rows] == [check.__name__ for check in CHECKS]


def test_a_network_without_defence_hides_nothing(plain):
    assert checks(plain)[0] == set()


def test_quantised_inputs_are_found_out(robust):
    failed, rows = checks(Before(robust, lambda x: (3 * x).round() / 3))
    assert {"zero_gradients", "black_box_wins"} <= failed
    assert {row.name: row.figure for row in rows}["zero_gradients"] == 1.0


def test_masking_that_a_copy_of_the_network_lacks_is_found_out(robust):
    """Pixels of digits are multiples of 1/16: at the images, both have the same logits."""

    class Unmasked(Before):
        def __deepcopy__(self, memo):
            return Before(self.net)

    def grid(x):
        return (16 * x).round() / 16

    failed, rows = checks(Unmasked(robust, grid))
    assert {"zero_gradients", "black_box_wins"} <= failed
    others = checks(Before(robust, grid))[1]
    assert [row.verdict for row in rows] == [row.verdict for row in others]
    figures = [[row.figure for row in found] for found in (rows, others)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_a_network_whose_copy_shares_weights_is_left_as_it_was(robust):
    class Shared(Before):
        def __deepcopy__(self, memo):
            return Shared(self.net)

    split = subset(datasets.parse("digits").load("test"), 8)[0]
    before = deepcopy(robust.state_dict())
    for precision in ("fp32", "bf16"):
        with frozen(robust):
            Fast(precision=precision).prepare(Shared(robust), split.pixels())
    assert all(torch.equal(value, before[key]) for key, value in robust.state_dict().items())


def test_a_saturated_softmax_is_found_out(plain):
    failed, _ = checks(Before(plain, after=lambda out: (100 * out).softmax(1)))
    assert {"softmax_outputs", "zero_gradients", "black_box_wins"} <= failed
    assert checks(Before(plain, after=lambda out: out.log_softmax(1)))[0] == {"softmax_outputs"}


def test_defensive_distillation_is_found_out(plain):
    def teacher(x, y):
        return plain(x).detach().softmax(1)

    failed, _ = checks(fitted(teacher, temperature=100.0))
    assert {"zero_gradients", "black_box_wins"} <= failed


def test_a_noise_layer_is_found_out_unless_the_protocol_averages_over_it(plain):
    noisy = Before(plain, lambda x: x + 0.1 * torch.randn_like(x))
    assert "randomised_forward" in checks(noisy)[0]
    failed, rows = checks(noisy, passes=4)
    assert "randomised_forward" not in failed and rows[0].figure == 1.0


def test_a_network_that_climbs_in_its_forward_pass_is_found_out(plain):
    def purified(x):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(plain(leaf).logsumexp(1).sum(), leaf)
        return x + 0.01 * gradient.sign()

    assert checks(Before(plain, purified))[0] == {"gradients_in_forward"}


def test_test_time_energy_descent_in_a_ball_is_found_out(plain):
    """As in ET3: a few steps of E = −LSE f before the image is classified."""
    ball = Threat(norm="l2", eps=0.5).ball

    def descended(x):
        at = x
        for _ in range(2):
            with torch.enable_grad():
                leaf = at.detach().requires_grad_()
                plain(leaf).logsumexp(1).sum().backward()
            at = ball.project(at + 0.25 * ball.steepest(leaf.grad), x.detach())
        return x + (at - x).detach()

    assert "gradients_in_forward" in checks(Before(plain, descended))[0]


class Sparse(nn.Module):
    """Replaces activations within α standard deviations of their mean by it: a staircase.

    As in MeanSparse (arXiv 2406.05927), before the activation function `after`.
    """

    def __init__(self, seen, alpha, after):
        super().__init__()
        across = [axis for axis in range(seen.ndim) if axis != 1]
        self.mean, self.after = seen.mean(across, keepdim=True), after
        self.width = alpha * seen.std(across, keepdim=True)

    def forward(self, a):
        near = (a - self.mean).abs() < self.width
        return self.after(torch.where(near, self.mean, a))


def sparse(model, alpha, x):
    """A copy of a network in which each SiLU stands behind such a staircase."""
    model = deepcopy(model).eval()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SiLU):
                with recorded(child) as seen, torch.no_grad():
                    model(x)
                setattr(parent, name, Sparse(seen[0], alpha, child))
    return model


@contextmanager
def recorded(module):
    seen = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    yield seen
    hook.remove()


def test_activations_zeroed_around_their_mean_are_found_out(robust):
    """The network is less robust than without, but PGD does not see it; Square does."""
    x = datasets.parse("digits").load("train").pixels()[:200]
    assert "black_box_wins" in checks(sparse(robust, 0.5, x), images=64)[0]


@pytest.mark.parametrize(
    ("slope", "found"), [(1.0, "one_step_wins"), (3.0, "stands_at_any_radius")]
)
def test_logits_that_a_tanh_saturates_are_found_out(plain, slope, found):
    """Beyond |z| = 9 the slope of tanh is zero in float32, which stops PGD and APGD alike."""
    saturated = Before(plain, after=lambda out: slope * (slope * out).tanh())
    assert found in checks(saturated)[0]


def test_gradients_that_are_right_at_the_image_alone_let_one_step_win(plain):
    """Pixels of digits are multiples of 1/16, where the ripple's slope is 1 + 0.9·cos = 1.9."""
    wave = 2 * math.pi * 16

    def ripple(x):
        return x + 3 / wave * torch.sin(wave * x)

    assert {"one_step_wins"} <= checks(Before(plain, ripple))[0]


def test_an_attack_with_too_few_steps_is_found_out(plain):
    assert "more_steps_help" in checks(plain, Threat(norm="l2", eps=0.7), steps=1)[0]


def test_a_loss_that_no_radius_changes_is_found_out(plain):
    """Pixels of digits are multiples of 1/16: none comes within 2ε = 0.02 of the threshold."""
    blocked = Before(plain, lambda x: (x > 0.53).float() + 0 * x)
    failed, rows = checks(blocked, Threat(norm="linf", eps=0.01))
    assert {"loss_does_not_grow", "stands_at_any_radius"} <= failed
    assert {row.name: row.figure for row in rows}["loss_does_not_grow"] == 0


def test_a_network_that_fails_between_pixel_values_is_refused(robust):
    def broken(x):
        return torch.where((16 * x).frac() == 0, x, torch.nan)

    with pytest.raises(ModelError, match="not finite in the check one_step_wins"):
        checks(Before(robust, broken))


def test_an_attack_spends_its_steps_on_the_images_nearest_to_a_success():
    reached = torch.randperm(5 * GROUP, generator=torch.Generator().manual_seed(0)).float()
    tried = []

    def attack(rows):
        tried.append(rows)
        return reached[rows] >= 4 * GROUP - FEW

    found = nearest_first(reached, attack)
    assert torch.equal(torch.cat(tried), reached.argsort(descending=True)[: 3 * GROUP])
    assert int(found.sum()) == GROUP + FEW and bool((reached[found] >= 4 * GROUP - FEW).all())


def test_checks_that_cannot_be_made_are_skipped_and_say_nothing(plain):
    by_name = {row.name: row for row in checks(plain, Threat(norm="linf", eps=0))[1]}
    assert by_name["more_steps_help"].verdict == "skipped"
    assert by_name["zero_gradients"].verdict == "pass"
    _, rows = checks(plain, images=19)
    assert {row.verdict for row in rows} == {"skipped"}
    assert all(row.figure is None for row in rows)


def test_the_record_holds_a_row_a_check_and_the_table_marks_failures(copy):
    found, _ = evaluate(copy, load_protocol("quick", [*NOTHING, "sanity={steps: 3, queries: 20}"]))
    assert [row.name for row in found.sanity] == [
        *(check.__name__ for check in [*CHECKS, *consistency.CHECKS]),
        black_box.NAME,
    ]
    assert all(row.meaning for row in found.sanity)
    bad = SanityCheck(name="zero_gradients", verdict="fail", figure=0.3, meaning="…")
    good = SanityCheck(name="black_box_wins", verdict="pass", figure=0.0, meaning="…")
    (board,) = build_boards(
        [record("honest", sanity=[good]), record("illusion", sanity=[bad, good])]
    )
    cells = dict(zip(board.shown["run"], board.shown["sanity"], strict=True))
    assert cells == {"honest": "", "illusion": "⚠ zero_gradients"}
    assert set(board.table["sanity_failed"]) == {"", "zero_gradients"}
    (quiet,) = build_boards([record("honest", sanity=[good])])
    assert "sanity" not in quiet.shown


def test_averaging_gives_the_logarithm_of_the_mean_probability():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return torch.tensor([[0.0, 1.0], [2.0, 0.0]])[self.calls % 2].expand(len(x), 2)

    both = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).softmax(1).mean(0)
    assert averaged(Two(), 4)(images(3))[1].exp() == pytest.approx(both)


def test_verdicts_on_a_randomised_network_are_repeatable_and_leave_the_generators_alone(
    short_autoattack,
):
    model = conv_net()
    noisy = Before(model, lambda x: x + 0.3 * torch.randn_like(x)).eval()
    x = images(24)
    split = Split.of((x * 255).round().byte(), model.eval()(x).argmax(1), tuple("0123456789"))
    plan = {"name": "test", "passes": 5, "attacks": [{"name": "pgd", "steps": 2}]}
    eot = {**plan, "attacks": [{"name": "autoattack", "version": "rand"}]}
    before = torch.get_rng_state()
    for values in (plan, eot):
        args = (noisy, split, torch.arange(24), Protocol.parse(values), LINF)
        tables = [attack_split(*args) for _ in range(2)]
        pd.testing.assert_frame_equal(*tables)
    assert "autoattack-rand_broken" in tables[0] and torch.equal(torch.get_rng_state(), before)
    assert set(tables[0]["autoattack-rand_by"]) <= {"", "apgd-ce", "apgd-dlr"}
