"""Our APGD, FAB and Square beside pyautoattack's: the same points on shared random draws."""

import pyautoattack
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_projections import projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import nn

from cembench.attacks.apgd import apgd, ratio, targeted_apgd
from cembench.attacks.fab import project, targeted_fab
from cembench.attacks.square import L2Search, LinfSearch, bumps, square
from cembench.attacks.survivors import AttackState, ranked, side_by_side
from cembench.energy.ascent import L2, Linf
from cembench.energy.potentials import cross_entropy
from cembench.util.errors import CembenchError
from cembench.util.rng import generator_of

NORMS = {"linf": ("Linf", Linf), "l2": ("L2", L2)}
TOO_SMALL = {"linf": 0.004, "l2": 0.02}  # no image is broken, so all of them go all the way
LARGE = {"linf": 0.15, "l2": 1.5}


class Spy(nn.Module):
    """Remembers what it was asked, and whether a gradient was wanted."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        if x.requires_grad:
            self.seen.append(x.detach().clone())
        return self.model(x)


@pytest.fixture(scope="module")
def smooth():
    """A smooth network on 3×8×8 images, all labelled as it says."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(512, 10)]
    model = nn.Sequential(*layers).eval().requires_grad_(False)
    x = torch.rand(12, 3, 8, 8, generator=generator_of(1, "cpu"))
    return model, x, model(x).argmax(1)


def prey_of(model, x, y, norm, eps):
    return AttackState(model, x, y, NORMS[norm][1](eps))


def same_points(ours, theirs, tolerance=1e-4):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=tolerance, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_visits_the_official_points(smooth, norm, loss):
    model, x, y = smooth
    theirs, ours = Spy(model), Spy(model)
    APGDAttack(
        theirs, norm=NORMS[norm][0], eps=TOO_SMALL[norm], seed=3, loss=loss, device="cpu"
    ).perturb(x, y)
    state = prey_of(model, x, y, norm, TOO_SMALL[norm])
    potential = {"ce": cross_entropy, "dlr": ratio}[loss]
    apgd(ours, state, potential, generator=generator_of(3, "cpu"))
    assert not state.broken.any() and len(ours.seen) == 101
    same_points(ours.seen, theirs.seen)


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_apgd_visits_the_official_points_target_by_target(smooth, norm):
    model, x, y = smooth
    theirs, ours = Spy(model), Spy(model)
    APGDAttack_targeted(
        theirs, norm=NORMS[norm][0], eps=TOO_SMALL[norm], seed=3, n_iter=40, device="cpu"
    ).perturb(x, y)
    state = prey_of(model, x, y, norm, TOO_SMALL[norm])
    targeted_apgd(ours, state, steps=40, room=1, generator=generator_of(3, "cpu"))
    same_points(ours.seen, theirs.seen)
    together = Spy(model)
    targeted_apgd(together, state, steps=40, room=9 * len(x), generator=generator_of(3, "cpu"))
    assert len(together.seen) == 41
    last = [points[-len(x) :] for points in together.seen]
    same_points(last, theirs.seen[-41:])


@pytest.mark.parametrize("norm", NORMS)
def test_fab_visits_the_official_points(smooth, norm):
    model, x, y = smooth
    theirs, ours = Spy(model), Spy(model)
    settings = {"norm": NORMS[norm][0], "eps": TOO_SMALL[norm], "n_iter": 15, "device": "cpu"}
    FABAttack_PT(theirs, targeted=True, n_target_classes=3, **settings).perturb(x, y)
    state = prey_of(model, x, y, norm, TOO_SMALL[norm])
    targeted_fab(ours, state, targets=3, steps=15, room=1)
    same_points(ours.seen, theirs.seen, 1e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_projections_onto_a_plane_in_the_box_are_the_official_ones(norm):
    generator = generator_of(0, "cpu")
    points = torch.rand(200, 40, generator=generator)
    w = torch.randn(200, 40, generator=generator)
    w[:, :5] = 0
    b = (w * torch.rand(200, 40, generator=generator)).sum(1)
    b[:20] += 100 * b[:20].sign()  # planes that miss the box
    official = {"linf": projection_linf, "l2": projection_l2}[norm]
    moves = project(points, w, b, {"linf": "sign", "l2": "l2"}[norm])
    torch.testing.assert_close(moves[20:], official(points, w, b)[20:], atol=2e-4, rtol=0)
    there = points + moves
    assert there.min() > -1e-5 and there.max() < 1 + 1e-5
    assert ((w * there).sum(1) - b)[20:].abs().max() < 1e-3
    corner = torch.where((w * points).sum(1, keepdim=True) > b[:, None], w < 0, w > 0)
    moving = w[:20] != 0
    torch.testing.assert_close(there[:20][moving], corner[:20].float()[moving], atol=1e-5, rtol=0)


class Replayed(SquareAttack):
    """The official Square with our draws."""

    def feed(self, search):
        self.search, self.step, self.axis = search, -1, 0
        self.window = getattr(search, "window", None) or search.into
        return self

    def random_choice(self, shape):
        if self.step < 0:
            stripes = torch.sign(self.search.first - self.search.state.x)[..., :1, :]
            return stripes if self.norm == "Linf" else torch.ones(shape)
        if isinstance(self.search, L2Search):
            return self.search.sign[self.step][..., None, None]
        return self.search.colour[self.step]

    def p_selection(self, it):
        self.step, self.axis = it, 0
        return super().p_selection(it)

    def random_int(self, low=0, high=1, shape=(1,)):
        windows = [self.window, getattr(self.search, "out_of", None)]
        window, second = windows[self.axis // 2], self.axis % 2
        self.axis += 1
        return (window.left if second else window.top)[self.step : self.step + 1]

    def eta(self, s):
        return bumps(s, bool(self.search.turned[max(self.step, 0)]))


def replay(model, x, y, norm, queries):
    """Return where the official Square ends on our draws."""
    state = prey_of(model, x, y, norm, TOO_SMALL[norm])
    kind = {"linf": LinfSearch, "l2": L2Search}[norm]
    search = kind(state, generator_of(7, "cpu"), queries)
    official = Replayed(model, norm=NORMS[norm][0], eps=TOO_SMALL[norm], n_queries=queries)
    official.rescale_schedule = False
    official.init_hyperparam(x)
    usual, begins = official.normalize, [True]

    def normalize(delta):  # both begin with the same tiles
        return (search.first - x) / TOO_SMALL[norm] if begins and begins.pop() else usual(delta)

    official.normalize = normalize
    return official.feed(search).attack_single_run(x, y)[1]


@pytest.mark.parametrize("norm", NORMS)
def test_square_ends_where_the_official_one_does(smooth, norm):
    model, x, y = smooth
    x = (x * 0.6 + 0.2).clone()  # away from the edges, where stripes are cut
    top = model(x).topk(2).values
    x = x[(top[:, 0] - top[:, 1]).argsort(descending=True)[:8]]
    y = model(x).argmax(1)
    ends = replay(model, x, y, norm, 600)
    for room in (1, 64):
        state = prey_of(model, x, y, norm, TOO_SMALL[norm])
        found = square(model, state, generator_of(7, "cpu"), queries=600, room=room)
        assert not state.broken.any()
        torch.testing.assert_close(found, ends, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_what_goes_together_changes_no_verdict(smooth, norm):
    model, x, y = smooth
    found = []
    for room in (1, 300):
        state = prey_of(model, x, y, norm, LARGE[norm] / 3)
        targeted_apgd(model, state, steps=20, room=room, generator=generator_of(0, "cpu"))
        targeted_fab(model, state, steps=20, room=room)
        square(model, state, generator_of(0, "cpu"), queries=100, room=room)
        found.append(state.broken)
    assert torch.equal(*found) and int((found[0] > 0).sum()) > 0


def test_shares_of_several_threads_come_to_the_same_verdicts(smooth):
    model, x, y = smooth
    found = []
    for parts in (1, 3):
        state = prey_of(model, x, y, "linf", LARGE["linf"] / 3)
        for share in state.shared(parts):
            targeted_apgd(model, share, steps=20, room=300, generator=generator_of(0, "cpu"))
            square(model, share, generator_of(0, "cpu"), queries=100, room=32)
        found.append(state.broken)
    assert torch.equal(*found) and 0 < int((found[0] > 0).sum()) < len(x)
    assert sorted(row for share in state.shared(3) for row in share.share.tolist()) == [*range(12)]


def test_a_share_that_fails_stops_the_others(smooth):
    model, x, y = smooth
    state = prey_of(model, x, y, "linf", 0.01)
    first, second = state.shared(2)
    first.stop.set()
    with pytest.raises(CembenchError, match="another share"):
        apgd(model, second, generator=generator_of(0, "cpu"))


def test_broken_images_leave_and_are_inside_the_ball(smooth):
    model, x, y = smooth
    spy = Spy(model)
    state = prey_of(model, x, y, "linf", LARGE["linf"])
    apgd(spy, state, generator=generator_of(0, "cpu"))
    assert (state.broken == 2).all() and len(spy.seen[-1]) < len(x)
    assert len(spy.seen) < 101
    assert (model(state.best).argmax(1) != y).all()
    assert (state.best - x).abs().max() <= LARGE["linf"] + 1e-5


def test_only_the_judge_decides(smooth):
    model, x, y = smooth
    state = AttackState(lambda images: torch.eye(10)[:1].expand(len(images), 10), x, 0 * y, Linf(1))
    liar = nn.Sequential(model, nn.Linear(10, 10)).requires_grad_(False)
    apgd(liar, state, steps=10, generator=generator_of(0, "cpu"))
    assert not state.broken.any() and torch.equal(state.best, x)


def test_a_claim_keeps_the_best_that_breaks_an_image():
    x = torch.full((3, 1, 1, 1), 128 / 255)

    def judge(images):
        return torch.cat([images - x[:1] - 2e-4, 0 * images], 1).flatten(1)

    state = AttackState(judge, x, torch.ones(3).long(), Linf(0.1))
    barely, well = x[:1] + 3e-4, x[:1] + 0.05
    rows = torch.tensor([0, 0, 1])
    done = state.claim(rows, torch.cat([well, barely, barely]), torch.ones(3).bool())
    assert done.tolist() == [True, True, False] and state.broken.tolist() == [2, 1, 0]
    assert torch.equal(state.best[0], well[0]) and torch.equal(state.best[1], barely[0])
    assert state.rows.tolist() == [1, 2]
    assert not state.claim(torch.tensor([1]), well, torch.ones(1).bool(), again=False).any()


def test_targets_go_together_as_far_as_there_is_room(smooth):
    model, x, y = smooth
    state = prey_of(model, x, y, "linf", 0.1)
    sizes = [len(rows) for rows, _ in side_by_side(state, 9, 50)]
    assert sizes == [48, 48, 12]
    pairs = [pair for group in side_by_side(state, 9, 50) for pair in zip(*group, strict=True)]
    assert {(int(row), int(rank)) for row, rank in pairs} == {
        (row, rank) for row in range(12) for rank in range(9)
    }
    state.broken[:] = 2
    assert list(side_by_side(state, 9, 50)) == []


def test_targets_are_ranked_as_the_official_code_ranks_them(smooth):
    model, x, y = smooth
    order = model(x).sort(dim=1)[1]
    for rank in range(9):
        assert torch.equal(ranked(model(x), y)[:, rank], order[:, -(rank + 2)])


def test_the_settings_are_those_of_the_standard_version():
    official = pyautoattack.AutoAttack(nn.Identity(), eps=0.1, norm="Linf", seed=0)
    assert (official.apgd.n_iter, official.apgd.n_restarts, official.apgd.thr_decr) == (
        100,
        1,
        0.75,
    )
    assert (official.fab.n_iter, official.fab.eta, official.fab.beta) == (100, 1.05, 0.9)
    assert official.fab.alpha_max == 0.1 and official.square.p_init == 0.8
    assert official.square.n_queries == 5000 and official.apgd_targeted.n_target_classes == 9
