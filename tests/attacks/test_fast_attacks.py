"""Our APGD, FAB and Square beside pyautoattack's: the same points on shared random draws."""

from inspect import signature

import pyautoattack
import pytest
import torch
from pyautoattack import autopgd_base
from pyautoattack import square as official_square
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_projections import projection_l1, projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import nn

from cembench.attacks.apgd import apgd, targeted_apgd
from cembench.attacks.apgd_runs import RUNS
from cembench.attacks.fab import project, targeted_fab
from cembench.attacks.square import SEARCHES, square
from cembench.attacks.square_bumps import BumpSearch
from cembench.attacks.state import AttackState, ranked_targets, target_batches
from cembench.energy.norms import NORMS, Linf
from cembench.energy.potentials import cross_entropy, dlr
from cembench.util.errors import CembenchError
from cembench.util.rng import generator_of

TOO_SMALL = {
    "linf": 0.004,
    "l2": 0.02,
    "l1": 0.08,
}  # no attack succeeds, so all images take all steps
LARGE = {"linf": 0.15, "l2": 1.5, "l1": 9.0}


class Spy(nn.Module):
    """Remembers what it was asked, and whether a gradient was wanted."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        if x.requires_grad:
            self.seen.append(x.detach().clone())
        return self.model(x)


class Precise(nn.Sequential):
    """Computes in float64, so that no gradient's sign depends on the rows beside it in a batch."""

    def forward(self, x):
        return super().forward(x.double()).float()


@pytest.fixture(scope="module")
def smooth():
    """A smooth network on 3×8×8 images, all labelled as it says."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(512, 10)]
    model = Precise(*layers).double().eval().requires_grad_(False)
    x = torch.rand(12, 3, 8, 8, generator=generator_of(1, "cpu"))
    return model, x, model(x).argmax(1)


def state_of(model, x, y, norm, eps):
    return AttackState(model, x, y, NORMS[norm](eps))


def same_points(ours, theirs, tolerance=1e-4, spared=0):
    """The same points for all images but a few, whose losses are equal but for rounding."""
    pairs = zip(ours, theirs, strict=True)
    off = [(mine - other).abs().flatten(1).amax(1) > tolerance for mine, other in pairs]
    assert int(torch.stack(off).any(0).sum()) <= spared


def official_apgd(kind, model, norm, monkeypatch, **settings):
    """pyautoattack's APGD with the settings of AutoAttack.

    In ℓ1 it draws starts that it throws away, and rounds so coarsely that it takes pixels that are
    as they were for changed: not here.
    """
    if norm == "l1":
        monkeypatch.setattr(autopgd_base, "L0_norm", lambda x: (x.abs() > 2e-7).flatten(1).sum(1))
        monkeypatch.setattr(
            autopgd_base,
            "L1_projection",
            lambda x, delta, eps: NORMS["l1"](eps).project(x + delta, x) - x - delta,
        )
        usual = torch.randn
        monkeypatch.setattr(
            torch, "randn", lambda *a, **k: usual(*a, **k) if k else torch.zeros(*a)
        )
    name, eps = NORMS[norm].library_name, TOO_SMALL[norm]
    large = {"use_largereps": norm == "l1", "device": "cpu"}
    return kind(model, norm=name, eps=eps, seed=3, **large, **settings)


def visits(norm, steps):
    """How many points a run of APGD visits: one more than steps in each ball."""
    return sum(count + 1 for _, count in RUNS[norm].balls(NORMS[norm](0.1), steps))


@pytest.mark.parametrize("norm", SEARCHES)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_visits_the_official_points(smooth, norm, loss, monkeypatch):
    model, x, y = smooth
    theirs, ours = Spy(model), Spy(model)
    restarts = RUNS[norm].restarts
    options = {"loss": loss, "n_restarts": restarts}
    official_apgd(APGDAttack, theirs, norm, monkeypatch, **options).perturb(x, y)
    state = state_of(model, x, y, norm, TOO_SMALL[norm])
    potential = {"ce": cross_entropy, "dlr": dlr}[loss]
    apgd(ours, state, potential, generator=generator_of(3, "cpu"))
    assert not state.success.any() and len(ours.seen) == restarts * visits(norm, 100)
    same_points(ours.seen, theirs.seen, spared=int(norm == "l1"))


@pytest.mark.parametrize("norm", SEARCHES)
def test_targeted_apgd_visits_the_official_points_target_by_target(smooth, norm, monkeypatch):
    model, x, y = smooth
    theirs, ours = Spy(model), Spy(model)
    official_apgd(APGDAttack_targeted, theirs, norm, monkeypatch, n_iter=40).perturb(x, y)
    state = state_of(model, x, y, norm, TOO_SMALL[norm])
    targeted_apgd(ours, state, steps=40, max_batch=1, generator=generator_of(3, "cpu"))
    same_points(ours.seen, theirs.seen, spared=int(norm == "l1"))


@pytest.mark.parametrize("norm", SEARCHES)
def test_targeted_apgd_visits_the_same_points_with_all_targets_in_one_batch(smooth, norm):
    model, x, y = smooth
    # In float64 throughout: batches of other sizes round otherwise, and signs amplify that.
    precise, x = nn.Sequential(*model), x.double()
    alone, together = Spy(precise), Spy(precise)
    for spy, max_batch in ((alone, 1), (together, 9 * len(x))):
        state = state_of(precise, x, y, norm, TOO_SMALL[norm])
        targeted_apgd(spy, state, steps=40, max_batch=max_batch, generator=generator_of(3, "cpu"))
    points = visits(norm, 40)
    assert len(together.seen) == points and len(alone.seen) == 9 * points
    assert together.seen[-1].dtype == torch.float64
    same_points(together.seen, [torch.cat(alone.seen[at::points]) for at in range(points)])


@pytest.mark.parametrize("norm", SEARCHES)
def test_fab_visits_the_official_points(smooth, norm):
    model, x, y = smooth
    theirs, ours = Spy(model), Spy(model)
    name, eps = NORMS[norm].library_name, TOO_SMALL[norm]
    settings = {"norm": name, "eps": eps, "n_iter": 15, "device": "cpu"}
    FABAttack_PT(theirs, targeted=True, n_target_classes=3, **settings).perturb(x, y)
    state = state_of(model, x, y, norm, TOO_SMALL[norm])
    targeted_fab(ours, state, targets=3, steps=15, max_batch=1)
    same_points(ours.seen, theirs.seen, 1e-3)


@pytest.mark.parametrize("norm", SEARCHES)
def test_projections_onto_a_plane_in_the_box_are_the_official_ones(norm):
    generator = generator_of(0, "cpu")
    points = torch.rand(200, 40, generator=generator)
    w = torch.randn(200, 40, generator=generator)
    w[:, :5] = 0
    b = (w * torch.rand(200, 40, generator=generator)).sum(1)
    b[:20] += 100 * b[:20].sign()  # planes that miss the box
    official = {"linf": projection_linf, "l2": projection_l2, "l1": projection_l1}[norm]
    moves = project(points, w, b, norm)
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
        if isinstance(self.search, BumpSearch):
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
        return self.search.bump_of(s, bool(self.search.transposed[max(self.step, 0)]))


def replay(model, x, y, norm, queries, monkeypatch):
    """Return where the official Square ends on our draws."""
    state = state_of(model, x, y, norm, TOO_SMALL[norm])
    search = SEARCHES[norm](state, generator_of(7, "cpu"), queries)
    name, eps = NORMS[norm].library_name, TOO_SMALL[norm]
    official = Replayed(model, norm=name, eps=eps, n_queries=queries)
    official.rescale_schedule = False
    official.init_hyperparam(x)
    usual, begins = official.normalize, [True]

    def normalize(delta):  # both begin with the same tiles
        return (search.first - x) / TOO_SMALL[norm] if begins and begins.pop() else usual(delta)

    official.normalize = normalize
    projected = official_square.L1_projection

    def projection(x, delta, eps):
        return search.first - x - delta if begins and begins.pop() else projected(x, delta, eps)

    monkeypatch.setattr(official_square, "L1_projection", projection)
    return official.feed(search).attack_single_run(x, y)[1]


@pytest.mark.parametrize("norm", SEARCHES)
def test_square_ends_where_the_official_one_does(smooth, norm, monkeypatch):
    model, x, y = smooth
    x = (x * 0.6 + 0.2).clone()  # away from the edges, where stripes are cut
    top = model(x).topk(2).values
    x = x[(top[:, 0] - top[:, 1]).argsort(descending=True)[:8]]
    y = model(x).argmax(1)
    queries = 200 if norm == "l1" else 600
    ends = replay(model, x, y, norm, queries, monkeypatch)
    for max_batch in (1, 64):
        state = state_of(model, x, y, norm, TOO_SMALL[norm])
        found = square(model, state, generator_of(7, "cpu"), queries=queries, max_batch=max_batch)
        assert not state.success.any()
        torch.testing.assert_close(found, ends, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", SEARCHES)
def test_the_size_of_batches_changes_no_verdict(smooth, norm):
    model, x, y = smooth
    found = []
    for max_batch in (1, 300):
        state = state_of(model, x, y, norm, LARGE[norm] / 3)
        targeted_apgd(model, state, steps=20, max_batch=max_batch, generator=generator_of(0, "cpu"))
        targeted_fab(model, state, steps=20, max_batch=max_batch)
        square(model, state, generator_of(0, "cpu"), queries=100, max_batch=max_batch)
        found.append(state.success)
    assert torch.equal(*found) and int((found[0] > 0).sum()) > 0


def test_shards_of_several_threads_come_to_the_same_verdicts(smooth):
    model, x, y = smooth
    found = []
    for parts in (1, 3):
        state = state_of(model, x, y, "linf", LARGE["linf"] / 3)
        for shard in state.shards(parts):
            targeted_apgd(model, shard, steps=20, max_batch=300, generator=generator_of(0, "cpu"))
            square(model, shard, generator_of(0, "cpu"), queries=100, max_batch=32)
        found.append(state.success)
    assert torch.equal(*found) and 0 < int((found[0] > 0).sum()) < len(x)
    assert sorted(row for shard in state.shards(3) for row in shard.shard.tolist()) == [*range(12)]


def test_a_shard_that_fails_stops_the_others(smooth):
    model, x, y = smooth
    state = state_of(model, x, y, "linf", 0.01)
    first, second = state.shards(2)
    first.stop.set()
    with pytest.raises(CembenchError, match="another shard"):
        apgd(model, second, generator=generator_of(0, "cpu"))


def test_successfully_attacked_images_leave_and_are_inside_the_ball(smooth):
    model, x, y = smooth
    spy = Spy(model)
    state = state_of(model, x, y, "linf", LARGE["linf"])
    apgd(spy, state, generator=generator_of(0, "cpu"))
    assert (state.success == 2).all() and len(spy.seen[-1]) < len(x)
    assert len(spy.seen) < 101
    assert (model(state.best).argmax(1) != y).all()
    assert (state.best - x).abs().max() <= LARGE["linf"] + 1e-5


def test_only_the_verifier_decides(smooth):
    model, x, y = smooth
    state = AttackState(lambda images: torch.eye(10)[:1].expand(len(images), 10), x, 0 * y, Linf(1))
    liar = nn.Sequential(model, nn.Linear(10, 10)).requires_grad_(False)
    apgd(liar, state, steps=10, generator=generator_of(0, "cpu"))
    assert not state.success.any() and torch.equal(state.best, x)


def test_the_best_success_on_an_image_is_kept():
    x = torch.full((3, 1, 1, 1), 128 / 255)

    def verifier(images):
        return torch.cat([images - x[:1] - 2e-4, 0 * images], 1).flatten(1)

    state = AttackState(verifier, x, torch.ones(3).long(), Linf(0.1))
    barely, well = x[:1] + 3e-4, x[:1] + 0.05
    rows = torch.tensor([0, 0, 1])
    done = state.record_success(rows, torch.cat([well, barely, barely]), torch.ones(3).bool())
    assert done.tolist() == [True, True, False] and state.success.tolist() == [2, 1, 0]
    assert torch.equal(state.best[0], well[0]) and torch.equal(state.best[1], barely[0])
    assert state.active.tolist() == [1, 2]
    args = torch.tensor([1]), well, torch.ones(1).bool()
    assert not state.record_success(*args, recheck=False).any()


def test_batches_of_targets_are_as_large_as_allowed(smooth):
    model, x, y = smooth
    state = state_of(model, x, y, "linf", 0.1)
    sizes = [len(rows) for rows, _ in target_batches(state, 9, 50)]
    assert sizes == [48, 48, 12]
    pairs = [pair for group in target_batches(state, 9, 50) for pair in zip(*group, strict=True)]
    assert {(int(row), int(rank)) for row, rank in pairs} == {
        (row, rank) for row in range(12) for rank in range(9)
    }
    state.success[:] = 2
    assert list(target_batches(state, 9, 50)) == []


def test_targets_are_ranked_as_the_official_code_ranks_them(smooth):
    model, x, y = smooth
    order = model(x).sort(dim=1)[1]
    for rank in range(9):
        assert torch.equal(ranked_targets(model(x), y)[:, rank], order[:, -(rank + 2)])


@pytest.mark.parametrize("norm", SEARCHES)
def test_the_settings_are_those_of_the_standard_version(norm):
    official = pyautoattack.AutoAttack(
        nn.Identity(), eps=0.1, norm=NORMS[norm].library_name, seed=0
    )
    assert (official.apgd.n_iter, official.apgd.thr_decr) == (100, 0.75)
    assert RUNS[norm].restarts == official.apgd.n_restarts
    assert RUNS[norm].targets == official.apgd_targeted.n_target_classes
    assert official.apgd.use_largereps == official.apgd_targeted.use_largereps == (norm == "l1")
    assert (official.fab.n_iter, official.fab.eta, official.fab.beta) == (100, 1.05, 0.9)
    assert official.fab.n_target_classes == 9
    assert official.fab.alpha_max == 0.1 and official.square.p_init == 0.8
    assert official.square.n_queries == 5000
    for attack, argument, theirs in (
        (apgd, "steps", official.apgd.n_iter),
        (targeted_apgd, "steps", official.apgd_targeted.n_iter),
        (targeted_fab, "steps", official.fab.n_iter),
        (square, "queries", official.square.n_queries),
    ):
        assert signature(attack).parameters[argument].default == theirs
