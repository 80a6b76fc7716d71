"""Networks that autograd cannot follow, that raise, or whose logits are odd: one answer for each.

White-box attacks do not apply to a network without gradient, black-box attacks count, and its row
is marked. A network that raises has a record that says so, in one line.
"""

import logging
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import cembench as cb
from cembench.attacks import Attack, attacks
from cembench.attacks.torchattacks import ATTACKS, TorchattacksAttack
from cembench.data import datasets
from cembench.evaluation.protocol import parse_protocol
from cembench.evaluation.record.files import load_record, load_table
from cembench.evaluation.target import target_of
from cembench.evaluation.verify import verify_record
from cembench.models.gradient import missing_gradient
from cembench.models.networks import SmallNet
from cembench.reporting.leaderboard import build_boards
from cembench.samplers import Sampler, samplers
from cembench.util.errors import CembenchError, ModelError
from cembench.util.files.yaml import to_yaml
from tests.conftest import Linear, experiment, images, shorten_autoattack

DIGITS = datasets.parse("digits")


def fitted():
    """Return a linear network that is right on most digits."""
    net, train = Linear(64, 10), DIGITS.load("train")
    x, y = train.pixels().flatten(1), train.labels
    solved = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), torch.eye(10)[y]).solution
    net.weight.data, net.bias.data = 10 * solved[:-1].T.contiguous(), 10 * solved[-1]
    return net


NET = fitted()


class Through(nn.Module):
    """A network that a function calls."""

    def __init__(self, call):
        super().__init__()
        self.net, self.call = NET, call

    def forward(self, x):
        return self.call(self.net, x)


class Stumps(nn.Module):
    """Votes of decision stumps in NumPy, without a parameter: class k where a pixel is bright."""

    def __init__(self, trees=400):
        super().__init__()
        data, random = DIGITS.load("train"), np.random.default_rng(0)
        x, y = data.pixels().numpy().reshape(len(data), -1), data.labels.numpy()
        self.pixel = random.integers(0, 64, trees)
        self.above = np.stack([x[:, p] > 0.5 for p in self.pixel], 1)
        self.leaf = np.stack(
            [
                [np.bincount(y[side], minlength=10) / max(1, side.sum()) for side in (~a, a)]
                for a in self.above.T
            ]
        )

    def forward(self, x):
        above = x.numpy().reshape(len(x), -1)[:, self.pixel] > 0.5
        votes = np.log(self.leaf[np.arange(len(self.pixel)), above.astype(int)] + 0.01).sum(1)
        return torch.from_numpy(votes)


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()


class BadBackward(NoBackward):
    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("no\nway back")


def without_grad(net, x, mode=torch.no_grad):
    with mode():
        return net(x)


def modified(net, x):
    out = (net(x) / 50).sigmoid()
    found = out.square()
    out.add_(1)
    return found


def winner(net, x):
    return nn.functional.one_hot(net(x).argmax(1), 10)


WITHOUT = {
    "no_grad": (without_grad, "no path"),
    "inference": (partial(without_grad, mode=torch.inference_mode), "no path"),
    "detached": (lambda net, x: net(x).detach(), "no path"),
    "integers": (winner, "no path"),
    "booleans": (lambda net, x: winner(net, x) > 0, "no path"),
    "other leaf": (lambda net, x: net(x).detach().requires_grad_(), "no path"),
    "no backward": (lambda net, x: NoBackward.apply(net(x)), "You must implement"),
    "bad backward": (lambda net, x: BadBackward.apply(net(x)), "raised ValueError: no way back"),
    "in place": (modified, "modified by an inplace operation"),
    "stumps": (None, "Can't call numpy"),
}
WITH = {
    "saturated": lambda net, x: net(x).clamp(50, 50),
    "straight through": lambda net, x: winner(net, x) + net(x) - net(x).detach(),
    "partly": lambda net, x: torch.cat([net(x)[:, :9].detach(), net(x)[:, 9:]], 1),
    "half": lambda net, x: net(x).half(),
    "double": lambda net, x: net(x).double(),
}
FEW = {"count": 20, "extractor": {"name": "lite0", "size": 32}}
PLAN = {
    "limit": 24,
    "batch_size": 16,
    "attacks": [
        {"name": "pgd", "steps": 2},
        {"name": "torchattacks", "attack": "CW", "args": {"steps": 2}},
        {"name": "torchattacks", "attack": "Square", "args": {"n_queries": 5}},
        "autoattack",
        {"name": "autoattack-fast", "sample": 4},
    ],
    "samples": {**FEW, "samplers": [{"name": "rcs", "steps": 2}]},
    "density": {"steps": 2},
    "sanity": {"images": 24, "steps": 2, "queries": 20},
    "curve": {"attack": {"name": "pgd", "steps": 2}, "factors": [1.0]},
}
SHORT = {key: PLAN[key] for key in ("limit", "batch_size")} | {
    "attacks": [{"name": "pgd", "steps": 2}, "autoattack"],
    "density": {"steps": 2},
}
OF_AUTOATTACK = {"apgd-ce", "apgd-t", "fab-t"}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    shorten_autoattack(monkeypatch, steps=2, queries=20)


def measured(call, engine="plain", plan=SHORT, trusted=True):
    net = Stumps() if call is None else Through(call)
    return cb.evaluate(net.eval(), "digits", {**plan, "engine": engine}, trust_pixels=trusted)


@pytest.mark.parametrize("name", WITHOUT)
def test_black_box_attacks_alone_count_on_a_network_without_gradient(name):
    call, reason = WITHOUT[name]
    record = measured(call)
    assert record.error is None and reason in record.no_gradient
    assert record.figures.keys() == {"clean", "autoattack", "worst_case"}
    figure = record.figures["autoattack"]
    assert 0 < figure.correct <= record.figures["clean"].correct and figure.won.keys() <= {"square"}
    assert record.figures["clean"].accuracy > 0.5
    left_out = {"pgd", *(f"autoattack {stage}" for stage in OF_AUTOATTACK)}
    assert left_out < set(record.not_applicable)
    assert record.sanity_failed == ["no_gradient"]
    (said,) = [text for text in record.warnings if "black-box attacks only" in text]
    assert record.no_gradient in said and "autoattack fab-t" in said and "\n" not in said
    assert record.density.pushed == {} and record.density.outside["noise"].keys() == {
        "log_px",
        "max_softmax",
    }


def test_outputs_that_no_attack_differentiates_need_not_be_logits():
    for call in (winner, None, lambda net, x: net(x).detach().softmax(1)):
        assert measured(call, plan=SHORT | {"limit": 8}, trusted=False).no_gradient
    with pytest.raises(CembenchError, match="returns probabilities, not logits"):
        measured(lambda net, x: net(x).softmax(1), trusted=False)


@pytest.mark.parametrize("name", ["detached", "in place", "stumps"])
def test_the_fast_engine_attacks_such_a_network_as_it_is(name):
    call, reason = WITHOUT[name]
    record = measured(call, "fast")
    assert record.error is None and reason in record.no_gradient
    assert record.figures.keys() == {"clean", "autoattack-fast", "worst_case"}


@pytest.mark.parametrize("engine", ["plain", "fast"])
@pytest.mark.parametrize("name", WITH)
def test_whatever_autograd_follows_is_attacked_through_its_gradient(name, engine):
    plan = {"limit": 8, "attacks": [{"name": "pgd", "steps": 2}]}
    record = measured(WITH[name], engine, plan)
    assert record.error is None and record.no_gradient == "" and record.not_applicable == []
    assert record.figures.keys() == {"clean", "pgd", "worst_case"}


def test_every_part_of_a_protocol_says_that_it_does_not_apply():
    record = measured(WITHOUT["no_grad"][0], plan=PLAN)
    assert record.figures.keys() == {
        *("clean", "square", "autoattack", "autoattack-sampled", "worst_case")
    }
    assert record.not_applicable == [
        *("pgd", "cw", "autoattack apgd-ce", "autoattack apgd-t", "autoattack fab-t"),
        *(f"autoattack-sampled {s}" for s in ("apgd-ce", "apgd-t", "apgd-t-others", "fab-t")),
        *("samples rcs-gaussian", "curve pgd", "density slope", "density pgd", "density ta"),
    ]
    assert "not applicable, the network has no" in record.generation.samplers["rcs-gaussian"].error
    assert record.curve == []
    skipped = {check.name for check in record.sanity if check.verdict == "skipped"}
    assert {"zero_gradients", "black_box_wins"} < skipped and "randomised_forward" not in skipped


def test_the_row_of_a_network_without_gradient_is_marked_beside_an_honest_one():
    records = [
        measured(call).model_copy(update={"run": name})
        for name, call in (("honest", lambda net, x: net(x)), ("opaque", WITHOUT["detached"][0]))
    ]
    (board,) = build_boards(records)
    rows = board.shown.set_index("run")
    assert list(rows.index) == ["opaque", "honest"]
    assert rows["sanity"].to_dict() == {
        "opaque": "⚠ no_gradient unchecked",
        "honest": "unchecked",
    }
    assert rows.loc["opaque", "pgd ↑"] == "–" and "%" in rows.loc["opaque", "autoattack ↑"]


class Named(Attack):
    """A plugin's attack, of which nobody knows whether it needs a gradient."""

    def stages(self, target):
        return [(self.title, partial(self.propose, target))]


class Noise(Named):
    name = "noise"

    def propose(self, target, x, y):
        logging.getLogger("cembench").warning("by chance,\n with luck")
        return (x + 0.1 * torch.randn_like(x).sign()).clamp(0, 1)


class Slope(Named):
    name = "slope"

    def propose(self, target, x, y):
        x = x.requires_grad_()
        target.model(x).sum().backward()
        return (x + 0.1 * x.grad.sign()).clamp(0, 1).detach()


class Climb(Sampler):
    name = "climb"
    gradients: ClassVar[int] = 1

    def draw(self, model, x, y, context, target=None):
        x = x.clone().requires_grad_()
        model(x).sum().backward()
        return x.detach() + x.grad


def test_attacks_and_samplers_of_plugins_are_tried(monkeypatch):
    for registry, kind in ((attacks, Noise), (attacks, Slope), (samplers, Climb)):
        monkeypatch.setitem(registry._targets, kind.name, kind)
    plan = {"limit": 24, "attacks": ["noise", "slope"]}
    plan |= {"samples": {**FEW, "samplers": ["climb"]}}
    record = measured(WITHOUT["detached"][0], plan=plan)
    assert record.figures.keys() == {"clean", "noise", "worst_case"}
    assert record.not_applicable == ["slope", "samples climb-data"]
    assert any(text.startswith("by chance, with luck") for text in record.warnings)
    honest = measured(lambda net, x: net(x), plan=plan | {"samples": None})
    assert {"noise", "slope"} < honest.figures.keys() and honest.not_applicable == []


def test_the_black_box_attacks_of_torchattacks_are_those_that_follow_no_gradient():
    x = images(2, channels=3)
    net = Through(lambda _, x: x.detach().flatten(1)[:, :10])
    threat = DIGITS.threat
    plan = parse_protocol({"attacks": ["autoattack"]})
    target = target_of(net, 10, plan, threat, x)
    y = target.plain(x).argmax(1)
    args = {
        "Square": {"n_queries": 3},
        "SPSA": {"nb_iter": 1, "nb_sample": 2},
        "OnePixel": {"steps": 1, "popsize": 2},
        "Pixle": {"restarts": 1, "max_iterations": 2},
    }
    for name in [name for name, offer in ATTACKS.items() if offer.black_box]:
        attack = TorchattacksAttack(attack=name, args=args.get(name, {}))
        assert attack.black_box == {attack.title}
        ((_, propose),) = attack.stages(target)
        assert propose(x.clone(), y).shape == x.shape
    for name in ("FGSM", "APGD", "DeepFool", "FAB", "VMIFGSM"):
        ((_, propose),) = TorchattacksAttack(attack=name).stages(target)
        with pytest.raises(RuntimeError, match="does not require grad"):
            propose(x.clone(), y)


def test_a_record_of_such_a_checkpoint_is_verified(cembench, tmp_path, monkeypatch):
    module = tmp_path / "opaque_nets.py"
    module.write_text(
        "import torch\n"
        "class Opaque(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = torch.nn.Linear(64, 10)\n"
        "    def forward(self, x):\n"
        "        with torch.no_grad():\n"
        "            return self.net(x.flatten(1))\n"
    )
    weights = {"net.weight": NET.weight.data, "net.bias": NET.bias.data}
    torch.save(weights, tmp_path / "w.pt")
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    options = ["--weights", tmp_path / "w.pt", "--dataset", "digits", "--normalise", "none"]
    options += ["--plugin", "opaque_nets", "--out", run]
    assert cembench("import", "--model", "opaque_nets:Opaque", *options).code == 0
    plan = tmp_path / "plan.yaml"
    plan.write_text(to_yaml(PLAN))
    options = ["--protocol", plan, "--plugin", "opaque_nets"]
    result = cembench("eval", run, *options, "--save-adversarial", "--save-samples")
    assert result.code == 0 and "⚠ no_gradient" in result.out, result.err
    (path,) = (run / "eval").glob("*.json")
    record = load_record(path)
    assert record.no_gradient and "pgd_broken" not in load_table(path)
    assert record.figures["autoattack"].won.keys() <= {"square"}
    assert all(row.agrees for row in verify_record(path, run))
    result = cembench("sample", run, "-n", 4, "--out", tmp_path / "s.png", *options[2:])
    assert result.code == 2 and "not applicable, the network has no gradient" in result.err


@pytest.mark.parametrize("method", ["standard", {"name": "at", "negatives": {"steps": 1}}])
def test_training_without_a_gradient_ends_in_one_line(method, tmp_path, monkeypatch):
    monkeypatch.setattr(SmallNet, "forward", without_grad_forward)
    with pytest.raises(ModelError, match="gradient with respect to its"):
        cb.train(experiment(method=method), tmp_path)


def test_training_through_a_function_without_backward_ends_in_one_line(tmp_path, monkeypatch):
    forward = SmallNet.forward
    monkeypatch.setattr(SmallNet, "forward", lambda self, x: NoBackward.apply(forward(self, x)))
    with pytest.raises(ModelError, match="cannot be trained: its backward pass raised NotImpl"):
        cb.train(experiment(method="standard"), tmp_path)


def without_grad_forward(self, x):
    with torch.no_grad():
        return self.head(self.body(x))


def raising(error):
    def call(net, x):
        if len(x) > 1:
            raise error
        return net(x)

    return call


RAISING = {
    "value": (raising(ValueError("two\n lines")), "raised ValueError: two lines; in forward on"),
    "memory": (raising(MemoryError()), "raised MemoryError; in forward on images (8, 1, 8, 8)"),
    "assertion": (raising(AssertionError("a\n\nb")), "raised AssertionError: a b; in forward"),
    "key": (raising(KeyError("a\nb")), r"raised KeyError: 'a\nb'; in forward"),
    "long": (raising(ValueError("x" * 9999)), "xxx…; in forward"),
    "mixed types": (
        lambda net, x: net(x if len(x) == 1 else x.double()),
        "raised RuntimeError: expected m1 and m2 to have the same dtype",
    ),
    "double": (lambda net, x: net(x).double() * 1e300, "not finite on clean images (in float32)"),
    "half": (lambda net, x: (net(x) * 1e5).half(), "not finite on clean images (in float32)"),
    "shape": (lambda net, x: net(x)[:, : 9 + (len(x) == 1)], "returned (8, 9), expected 8×10"),
    "tuple": (lambda net, x: net(x) if len(x) == 1 else (net(x),), "returned tuple, expected"),
}


@pytest.mark.parametrize("engine", ["plain", "fast"])
@pytest.mark.parametrize("name", RAISING)
def test_a_network_that_breaks_its_contract_has_a_record_that_names_it(name, engine):
    call, expected = RAISING[name]
    record = measured(call, engine)
    assert expected in record.error and "\n" not in record.error and len(record.error) < 400
    assert record.figures == {} and record.generation is None


@pytest.mark.parametrize(
    "call", [lambda net, x: net(x).cfloat(), lambda net, x: net(x).to_sparse()]
)
def test_logits_that_are_no_numbers_in_a_dense_tensor_are_refused(call):
    with pytest.raises(ModelError, match="expected a dense tensor of numbers"):
        measured(call)


def test_a_gradient_that_is_there_for_a_few_images_alone_is_an_error_of_the_network():
    for attack in ("pgd", "autoattack"):
        record = measured(
            lambda net, x: net(x) if len(x) < 9 else net(x).detach(),
            plan={"limit": 24, "attacks": [attack]},
        )
        assert "no gradient with respect to its images: autograd finds no path" in record.error


def test_logits_near_the_end_of_float32_have_figures_like_any_others():
    plan = {"limit": 24, "density": {"steps": 1}, "samples": PLAN["samples"]}
    record = measured(lambda net, x: net(x) * 1e30, plan=plan)
    assert record.error is None and record.density.energies["clean"].std > 1e29
    found = record.generation.samplers["rcs-gaussian"]
    assert found.error is None and found.lse_std > 1e29


def test_a_gradient_that_is_not_finite_is_an_error_of_the_network():
    class Infinite(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.inf

    record = measured(lambda net, x: Infinite.apply(net(x)), plan={"limit": 8, "density": {}})
    assert record.error == "the gradient of log p(x) of the model is not finite"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_is_no_error_of_the_network(error):
    with pytest.raises(error):
        measured(raising(error()))


def test_a_gpu_that_is_too_small_is_no_error_of_the_network():
    def call(net, x):
        if len(x) > 9 and x.requires_grad:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return net(x)

    plan = SHORT | {"density": None}
    whole, halves = (measured(c, plan=plan) for c in (lambda net, x: net(x), call))
    assert halves.figures.keys() == whole.figures.keys() and halves.no_gradient == ""
    assert any("attacked in halves" in text for text in halves.warnings)
    with pytest.raises(torch.OutOfMemoryError):
        missing_gradient(Through(raising(torch.OutOfMemoryError())), images(2))
