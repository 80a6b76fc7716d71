"""Networks that lie: each row says what is wrong, whatever the protocol, and no honest one does.

What they answer an attack is not what they would answer the world: it depends on the batch, or on
earlier questions, or the gradients are those of something else.
"""

import pandas as pd
import pytest
import torch
from torch import nn

from cembench.attacks import attacks
from cembench.data import datasets
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measures.black_box import black_box_check
from cembench.evaluation.measures.consistency import consistency_checks
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.sections.sanity import ALWAYS
from cembench.evaluation.target import target_of
from cembench.models.checkpoint import load_checkpoint
from cembench.models.source import ModelSource
from cembench.reporting.describe import record_page
from cembench.reporting.leaderboard import build_boards
from cembench.util.frozen import copied, frozen
from tests.conftest import experiment
from tests.support.records import record

CHANGES, BATCH = "answers_change_between_calls", "answers_depend_on_batch"
GRADIENTS, BLACK_BOX = "wrong_gradients", "black_box_beats_white_box"
FEW = {"images": 32, "steps": 5, "queries": 100}
DATA = datasets.parse("digits")


class Liar(nn.Module):
    """A network behind a lie."""

    def __init__(self, net, other=None):
        super().__init__()
        self.net, self.other = net, other
        self.register_buffer("asked", torch.zeros(()))
        self.calls = 0
        self.seen = []


class Decoy(Liar):
    """The logits of one network with the gradients of another."""

    def forward(self, x):
        led = self.other(x)
        return self.net(x).detach() + led - led.detach()


class Saturated(Liar):
    def forward(self, x):
        return 1e4 * self.net(x)


class Detached(Liar):
    def forward(self, x):
        return self.net(x.detach())


class Quantised(Liar):
    def forward(self, x):
        return self.net((3 * x).round() / 3)


class StraightThrough(Liar):
    def forward(self, x):
        return self.net(x + ((3 * x).round() / 3 - x).detach())


class Remembering(Liar):
    """What it answered once it answers to all images around it."""

    def forward(self, x):
        out = self.net(x)
        for row, image in enumerate(x.detach()):
            near = [old for old, _ in self.seen if (old - image).abs().max() < 0.3]
            if near:
                out = out.index_put((torch.tensor(row),), self._answer(near[0]))
            else:
                self.seen.append((image, out[row].detach()))
        return out

    def _answer(self, image):
        return next(answer for old, answer in self.seen if old is image)


class Voting(Liar):
    """Each image is given part of the opinion on the others."""

    def forward(self, x):
        out = self.net(x)
        return out + 0.2 * out.mean(0)


class Drifting(Liar):
    """An attribute that no checkpoint holds changes its answers slowly."""

    def forward(self, x):
        self.calls += 1
        return self.net(x) + 1e-3 * self.calls * torch.arange(10.0)


class BufferDrifting(Liar):
    """The same in a buffer, which is restored after each attack."""

    def forward(self, x):
        self.asked += 1
        return self.net(x) + 1e-3 * self.asked * torch.arange(10.0)


class BatchStatistics(nn.BatchNorm2d):
    """A batch norm that cannot be put in evaluation mode."""

    def train(self, mode=True):
        return super().train(True)


class InTrainingMode(Liar):
    def __init__(self, net, other=None):
        super().__init__(net)
        self.norm = BatchStatistics(1)

    def forward(self, x):
        return self.net(0.3 + 0.3 * self.norm(x))


# What is found of each whatever the protocol, and by the checks that a protocol has to ask for.
LIARS: dict[type[Liar], tuple[set[str], set[str]]] = {
    Decoy: ({GRADIENTS}, set()),
    Saturated: (set(), {"zero_gradients"}),
    Detached: ({"no_gradient"}, set()),
    Quantised: (set(), {"zero_gradients"}),
    StraightThrough: ({GRADIENTS}, set()),
    Remembering: ({CHANGES}, set()),
    Voting: ({BATCH}, set()),
    Drifting: ({CHANGES}, set()),
    BufferDrifting: ({CHANGES}, set()),
    InTrainingMode: ({BATCH}, set()),
}


@pytest.fixture(scope="module")
def nets(trained, undefended):
    return load_checkpoint(undefended)[0], load_checkpoint(trained)[0]


def measured(model, tmp_path, engine="plain", **plan):
    values = {"attacks": [{"name": "pgd", "steps": 3}], "limit": 32, "engine": engine, **plan}
    source = ModelSource.of(model, DATA, experiment().threat, folder=tmp_path)
    return evaluate(source, Protocol.parse({"name": "test", **values}))[0]


@pytest.mark.parametrize("engine", ["plain", "fast"])
@pytest.mark.parametrize("kind", LIARS, ids=lambda kind: kind.__name__)
def test_a_lying_network_is_marked_whatever_the_protocol(kind, engine, nets, tmp_path):
    always, asked = LIARS[kind]
    found = measured(kind(*nets), tmp_path, engine)
    assert found.error is None and always == set(found.sanity_failed)
    assert found.unchecked == (kind is not Detached)  # of which no attack of the protocol applies
    if asked:
        found = measured(kind(*nets), tmp_path, engine, sanity=FEW)
        assert always | asked <= set(found.sanity_failed) and not found.unchecked


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_an_honest_network_is_not_marked(engine, nets, tmp_path):
    for net in nets:
        found = measured(net, tmp_path, engine)
        assert found.sanity_failed == [] and found.unchecked
        verdicts = {check.name: (check.verdict, check.figure) for check in found.sanity}
        assert verdicts == {
            **dict.fromkeys((CHANGES, BATCH, GRADIENTS), ("pass", 0.0)),
            BLACK_BOX: ("skipped", None),
        }


def test_checks_that_all_were_skipped_are_no_checks(nets, tmp_path):
    found = measured(Saturated(*nets), tmp_path, sanity={**FEW, "images": 19})
    assert tuple(check.name for check in found.sanity[9:]) == ALWAYS
    assert found.sanity_failed == [] and found.unchecked


def test_few_queries_are_enough_for_square_to_beat_pgd_on_a_decoy(nets, tmp_path):
    plan = {"sanity": {**FEW, "images": 40}, "limit": 40}
    assert "black_box_wins" in measured(Decoy(*nets), tmp_path, **plan).sanity_failed
    for net in nets:
        assert "black_box_wins" not in measured(net, tmp_path, **plan).sanity_failed


def checks(model, passes=1, unused=None):
    """The verdicts of the consistency checks, by name."""
    split = DATA.load("test").take(torch.arange(32))
    protocol = Protocol.parse({"name": "test", "curve": {}, "passes": passes})
    with frozen(model):
        target = target_of(model, 10, protocol, experiment().threat)
        rows = consistency_checks(target, split, unused)
    return {row.name: row.verdict for row in rows}


def test_random_layers_are_marked_unless_the_protocol_averages_over_them(nets):
    class Noisy(Liar):
        def forward(self, x):
            return self.net(x + 0.1 * torch.randn_like(x))

    nothing = dict.fromkeys((BATCH, GRADIENTS), "skipped")
    assert checks(Noisy(*nets)) == {CHANGES: "fail", **nothing}
    assert checks(Noisy(*nets), passes=4) == {CHANGES: "skipped", **nothing}


def test_a_network_that_cannot_answer_alone_depends_on_the_batch(nets):
    class Squeezing(Liar):
        def forward(self, x):
            return self.net(x).squeeze()

    assert checks(Squeezing(*nets))[BATCH] == "fail"


def test_a_copy_that_is_another_network_does_not_blame_this_one(nets):
    class Unfaithful(Liar):
        def __deepcopy__(self, memo):
            return self.other

    net = Unfaithful(*nets)
    net.forward = net.net.forward
    assert set(checks(net, unused=copied(net)).values()) == {"pass"}
    assert checks(nets[0], unused=nets[1])[CHANGES] == "fail"


def black_box(by, titles, correct=60):
    """The check on the verdicts of attacks, which say by image which stage broke it."""
    split = DATA.load("test").take(torch.arange(correct))
    columns = {"label": split.labels, "clean_pred": split.labels}
    plan = [attacks.parse(title) for title in titles]
    for attack, (stages, part) in zip(plan, by, strict=True):
        stages = [*stages, *[""] * (correct - len(stages))]
        columns[f"{attack.title}_by"] = stages
        if part:
            columns[f"{attack.title}_sample"] = [*part, *[""] * (correct - len(part))]
    protocol = Protocol.parse({"name": "test", "curve": {}})
    target = target_of(nn.Flatten(), 64, protocol, experiment().threat)
    return black_box_check(pd.DataFrame(columns), plan, target)


SQUARE = {"name": "torchattacks", "attack": "Square"}


@pytest.mark.parametrize(
    ("titles", "by", "verdict", "figure"),
    [
        ([SQUARE], [["square"] * 9], "skipped", None),
        (["pgd"], [["pgd"] * 9], "skipped", None),
        (["pgd", SQUARE], [["pgd"] * 9, ["square"] * 6], "pass", 0.0),
        (["pgd", SQUARE], [["pgd"] * 2, ["square"] * 12], "fail", 10 / 58),
        (["pgd", SQUARE], [["pgd"] * 2, [""] * 2 + ["square"] * 6], "pass", 6 / 58),
        (["autoattack"], [["apgd-ce"] * 20 + ["square"]], "pass", 1 / 40),
        (["autoattack"], [["apgd-ce"] * 20 + ["square"] * 4], "fail", 4 / 40),
        (["pgd", "autoattack"], [["pgd"] * 24, ["apgd-ce"] * 20 + ["square"] * 4], "pass", 0.0),
        (
            ["pgd", {**SQUARE, "on": "survivors"}],
            [["pgd"] * 20, ["before"] * 20 + ["square-rest"] * 4],
            "fail",
            4 / 40,
        ),
    ],
)
def test_a_black_box_attack_that_beats_white_box_ones_marks_the_row(titles, by, verdict, figure):
    found = black_box([(stages, []) for stages in by], titles)
    assert (found.verdict, found.figure) == (verdict, figure)


def test_images_that_square_was_not_tried_on_do_not_count():
    stages = ["apgd-ce"] * 20 + ["square"] * 2
    part = [""] * 20 + ["drawn"] * 8 + ["untried"] * 32
    sampled = {"name": "autoattack-fast", "sample": 8}
    assert black_box([(stages, part)], [sampled]).figure == 2 / 8


def test_the_marks_are_on_board_page_and_terminal(nets, tmp_path):
    liar = measured(Voting(*nets), tmp_path).model_copy(update={"run": "liar"})
    honest = measured(nets[1], tmp_path).model_copy(update={"run": "honest"})
    (board,) = build_boards([liar, honest])
    cells = dict(zip(board.shown["run"], board.shown["sanity"], strict=True))
    assert cells == {"liar": f"⚠ {BATCH} unchecked", "honest": "unchecked"}
    assert list(board.table["unchecked"]) == [True, True]
    assert f"⚠  {BATCH}" in record_page(liar) and "unchecked: nothing" in record_page(honest)
    (board,) = build_boards([record("earlier")])
    assert "sanity" not in board.shown and "unchecked" not in board.table
