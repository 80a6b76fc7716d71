"""FMN against closed forms and foolbox; cascades."""

import pytest
import torch

from cembench.attacks import Target
from cembench.attacks.cascade import Cascade
from cembench.attacks.fmn import FMN
from cembench.energy.norms import NORMS
from cembench.energy.threat import Threat
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measures.counts import count
from cembench.evaluation.protocol import Protocol, parse_protocol
from cembench.models.checkpoint import load_checkpoint
from cembench.util.errors import CembenchError
from tests.support.attacks import linear_case, run

THREAT = Threat(norm="linf", eps=0.1)


def pixels_needed(model, split):
    """The fewest pixels that flip a linear network: the most useful ones move as far as 0 or 1."""
    x, y = split.pixels().flatten(1), split.labels
    logits = model(split.pixels())
    slope = model.weight[y][:, None] - model.weight
    room = torch.where(slope > 0, x[:, None], 1 - x[:, None])
    gains = (slope.abs() * room).sort(2, descending=True).values.cumsum(2)
    gap = logits.gather(1, y[:, None]) - logits
    needed = (gains < gap[:, :, None]).sum(2) + 1
    return needed.scatter(1, y[:, None], 65).amin(1).detach()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("classes", [2, 6])
def test_the_smallest_perturbation_of_a_linear_network_is_found(classes, norm):
    model, split, distance = linear_case(classes, "linf" if norm == "l0" else norm)
    expected = pixels_needed(model, split) if norm == "l0" else distance
    table = run(model, split, THREAT, {"name": "fmn", "norm": norm})
    found = torch.tensor(table[f"fmn-{norm}_size"].tolist())
    ratio = found / expected
    assert ratio.min() > 0.999 and ratio.median() < 1.01
    assert ratio.quantile(0.9) < (1.01 if classes == 2 else 1.2)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_perturbations_are_no_larger_than_those_of_foolbox(trained, norm):
    foolbox = pytest.importorskip("foolbox")
    kinds = {"linf": "LInfFMNAttack", "l2": "DDNAttack", "l1": "L1FMNAttack"}
    model, metadata = load_checkpoint(trained)
    split = metadata.data.load("test").take(torch.arange(40))
    right = model(split.pixels()).argmax(1) == split.labels
    x, y = split.pixels()[right], split.labels[right]
    [(_, propose)] = FMN(norm=norm, steps=40).stages(Target.of(model, THREAT, classes=10))
    network = foolbox.PyTorchModel(model.eval(), bounds=(0, 1))
    _, theirs, _ = getattr(foolbox.attacks, kinds[norm])(steps=40)(network, x, y, epsilons=None)
    ball, sizes = NORMS[norm](0.0), []
    for images in (propose(x, y), theirs):
        assert images.min() >= 0 and images.max() <= 1
        fooled = model(images).argmax(1) != y
        sizes.append(torch.where(fooled, ball.size(images - x), torch.inf).median())
    ours, peer = sizes
    assert ours < 1.03 * peer and (norm != "linf" or peer < 1.03 * ours)


def test_a_cascade_says_what_each_attack_added(copy):
    parts = [{"name": "pgd", "steps": 2}, {"name": "pgd", "steps": 20, "label": "long"}]
    plan = {"attacks": [*parts, {"name": "cascade", "attacks": parts}], "limit": 40}
    record, _ = evaluate(copy, parse_protocol(plan))
    found = record.figures
    assert found["cascade"].correct < found["pgd"].correct
    won = found["cascade"].won
    assert won["long"] > 0 and won["pgd"] == found["clean"].correct - found["pgd"].correct
    assert sum(won.values()) == found["clean"].correct - found["cascade"].correct
    assert found["cascade"].stage_seconds.keys() == {"pgd", "long"}
    assert sum(found["cascade"].stage_seconds.values()) <= found["cascade"].seconds
    assert found["pgd"].stage_seconds == {} and "stage_seconds" not in found["pgd"].dump()


def test_a_cascade_has_the_verdicts_of_its_stages_run_alone():
    model, split, distance = linear_case(4, "linf")
    split, distance = split.take(torch.arange(16)), distance[:16]
    threat = Threat(norm="linf", eps=float(distance.quantile(0.9)))
    plan = ["cascade", {"name": "cascade", "label": "all", "attacks": ["autoattack-fast"]}]
    table = run(model, split, threat, *plan, "autoattack-fast")
    assert table["all_broken"].equals(table["autoattack-fast_broken"])
    assert table["cascade_broken"].sum() > 0
    figures = count(table, ["all", "cascade"], {})
    assert {name.split()[0] for name in figures["all"].won} == {"autoattack-fast"}
    assert figures["cascade"].won.keys() <= {"apgd-ce", "apgd-t"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "autoattack-quick"}, "a cascade is not AutoAttack"),
        ({"attacks": ["pgd", "pgd"]}, "the label 'pgd' is taken"),
        ({"attacks": [{"name": "autoattack-fast", "sample": 5}]}, "leave out sample"),
        ({"attacks": ["pdg"]}, "did you mean 'pgd'"),
    ],
)
def test_a_cascade_is_never_called_autoattack_and_refuses_what_it_cannot_do(settings, message):
    with pytest.raises(CembenchError, match=message):
        Protocol.parse({"name": "t", "attacks": [{"name": "cascade", **settings}]})


def test_a_cascade_follows_the_engine_and_knows_its_black_box_stages():
    inner = {"name": "cascade", "attacks": ["pgd", "autoattack"]}
    (cascade,) = Protocol.parse({"name": "t", "engine": "fast", "attacks": [inner]}).attacks
    assert [attack.title for attack in cascade.attacks] == ["pgd", "autoattack-fast"]
    assert cascade.black_box == {"autoattack-fast square"} and Cascade().black_box == set()
