"""The fast engine: the same network, other arithmetic, and verdicts that are the network's own."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

import cembench.bench.networks as networks
from cembench.evaluation.evaluate import collected_warnings, evaluate
from cembench.evaluation.measures.robustness import attack_split
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.verify import verify_record
from cembench.models import models
from cembench.models.blocks import DualBatchNorm2d
from cembench.models.checkpoint import load_checkpoint
from cembench.models.classifier import build_classifier
from cembench.models.copies.fast_copy import fast_copy
from cembench.models.copies.folding import Affine, folded
from cembench.models.copies.surrogate import ascent_model
from cembench.models.engine import Fast, engines
from cembench.util.errors import CembenchError, ConfigError, ModelError
from tests.conftest import NOTHING, shorten_autoattack

NETWORKS = [
    {"name": "small_cnn", "width": 8},
    {"name": "small_cnn", "width": 8, "norm": "dual"},
    {"name": "small_cnn", "width": 8, "norm": "group"},
    {"name": "resnet18", "width": 4},
    {"name": "preact_resnet18", "width": 4},
    {"name": "wide_resnet", "depth": 10, "width": 1},
    {"name": "torchvision", "arch": "resnet18"},
]


def network(settings, shape=(3, 16, 16)):
    """A network whose batch norms have seen images, in evaluation mode."""
    torch.manual_seed(0)
    model = build_classifier(models.parse(settings), shape, 10, torch.full(shape[:1], 0.4))
    for _ in range(3):
        model(torch.rand(16, *shape))
    return model.eval().requires_grad_(False)


def gradient(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).logsumexp(1).sum(), x)[0]


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_folding_changes_rounding_alone(settings):
    model, x = network(settings), torch.rand(6, 3, 16, 16)
    before, state = model(x), copy.deepcopy(model.state_dict())
    twin = folded(model, x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in used(twin, x))
    torch.testing.assert_close(twin(x), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient(twin, x), gradient(model, x), atol=1e-4, rtol=1e-3)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not model._forward_hooks and torch.equal(model(x), before)


def used(model, x):
    """The modules that a forward pass goes through."""
    found = []
    hooks = [m.register_forward_hook(lambda m, *_: found.append(m)) for m in model.modules()]
    model(x)
    for hook in hooks:
        hook.remove()
    return found


class TwoReaders(nn.Module):
    """A convolution whose output goes into a batch norm and past it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        out = self.conv(x)
        return (self.norm(out) + out).mean((2, 3))


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x + torch.randn_like(x))).mean((2, 3))


def test_a_random_network_stays_as_it_is():
    model = Random().eval()
    assert folded(model, torch.rand(4, 3, 8, 8)) is model


def test_a_convolution_that_something_else_reads_too_is_left_alone():
    model, x = TwoReaders(), torch.rand(4, 3, 8, 8)
    model.norm.running_mean += 1
    twin = folded(model.eval(), x)
    assert isinstance(twin.norm, Affine) and torch.equal(twin.conv.weight, model.conv.weight)
    torch.testing.assert_close(twin(x), model(x))


def test_a_batch_norm_without_a_convolution_is_a_scale_and_a_shift():
    model, x = nn.Sequential(nn.BatchNorm2d(3)), torch.rand(2, 3, 4, 4)
    model(torch.rand(8, 3, 4, 4))
    found = folded(model.eval(), x)
    assert isinstance(found[0], Affine)
    torch.testing.assert_close(found(x), model(x))


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_a_fast_copy_says_nearly_the_same(settings):
    model, x = network(settings), torch.rand(16, 3, 16, 16)
    out = model(x)
    fast = Fast(precision="bf16").prepare(model, x)
    assert fast(x).dtype == torch.float32
    assert (fast(x) - out).abs().max() < 0.05 * out.abs().max()
    turned = nn.functional.cosine_similarity(
        gradient(fast, x).flatten(1), gradient(model, x).flatten(1)
    )
    assert turned.mean() > 0.97 and turned.min() > 0.9
    exact = Fast(precision="fp32").prepare(model, x)
    torch.testing.assert_close(exact(x), out, atol=1e-4, rtol=1e-4)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in fast.parameters())


def test_the_first_and_the_last_layer_stay_in_float32():
    model = network({"name": "small_cnn", "width": 8})
    fast = fast_copy(model, torch.rand(2, 3, 16, 16), halved=True, compiled=False)
    for used_one in (fast.copied, fast.fusion):
        layers = [m for m in used_one.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        kinds = [layer.weight.dtype for layer in layers]
        assert sorted(kinds, key=str) == [*[torch.bfloat16] * 3, *[torch.float32] * 2]
        assert layers[-1 if used_one is fast.copied else 0].weight.dtype == torch.float32


def test_a_dual_batch_norm_is_folded_in_the_branch_it_is_in():
    model, x = network(NETWORKS[1]), torch.rand(2, 3, 16, 16)
    for module in model.modules():
        if isinstance(module, DualBatchNorm2d):
            module.branch = "clean"
            module.clean.running_mean += 1
    torch.testing.assert_close(folded(model, x)(x), model(x), atol=1e-4, rtol=1e-4)


def test_training_climbs_a_folded_copy_in_reduced_precision_alone():
    model, x = network(NETWORKS[3]).train(), torch.rand(4, 3, 16, 16)
    with ascent_model(model, x) as net:
        assert net is model
    with torch.autocast("cpu", torch.bfloat16):
        with ascent_model(model, x, "train") as net:
            assert net is model
        with ascent_model(model, x) as net:
            assert net is not model and not net.training
    assert model.training


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_copy_sees_batches_of_one_size_alone():
    model, x = network(NETWORKS[0]), torch.rand(100, 3, 16, 16)
    fast = Fast(precision="fp32", compile=True).prepare(model, x)
    for count in (1, 64, 100):
        torch.testing.assert_close(fast(x[:count]), model(x[:count]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient(fast, x), gradient(model, x), atol=1e-4, rtol=1e-3)


def test_a_network_that_cannot_be_compiled_is_an_error(monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: setattr(self, "forward", fails))
    with pytest.raises(CembenchError, match=r"cannot compile this network here: no compiler$"):
        fast_copy(network(NETWORKS[0]), torch.rand(2, 3, 16, 16), False, True)


@pytest.fixture
def standard(undefended):
    """The checkpoint of a network that is not robust."""
    return undefended / "model.safetensors"


@pytest.fixture(params=["robust", "standard"])
def checkpoint(request, trained, standard):
    return {"robust": trained, "standard": standard}[request.param]


def verdicts(checkpoint, engine, limit=24):
    model, metadata = load_checkpoint(checkpoint)
    split = metadata.data.load("test").take(torch.arange(limit))
    settings = {"name": "test", "attacks": ["autoattack"], "engine": engine}
    found = attack_split(
        model, split, torch.arange(limit), Protocol.parse(settings), metadata.threat
    )
    title = "autoattack" if engine == "plain" else "autoattack-fast"
    return found[f"{title}_broken"], found[f"{title}_broken_8bit"]


def test_fast_and_plain_agree_on_trained_networks_and_on_8_bit_images(checkpoint, monkeypatch):
    shorten_autoattack(monkeypatch, steps=30, queries=200)
    plain, fast = verdicts(checkpoint, "plain"), verdicts(checkpoint, "fast")
    for ours, official in zip(fast, plain, strict=True):
        assert (ours != official).sum() <= 1
    assert fast[0].sum() > 0


def test_a_fast_evaluation_has_a_column_of_its_own_and_can_be_verified(
    cembench, standard, tmp_path, short_autoattack
):
    run = tmp_path / "run"
    shutil.copytree(standard.parent, run)
    chosen = ["attacks=[pgd, autoattack]", "samples=null", "density=null", "sanity=null"]
    options = [option for value in chosen for option in ("--set", value)]
    kept = ("--save-adversarial", "--engine", "fast")
    done = cembench("eval", run, *options, "--limit", 24, *kept)
    assert done.code == 0, done.err
    assert "autoattack-fast" in done.out
    (record,) = (run / "eval").glob("*.json")
    assert "autoattack" not in json.loads(record.read_text())["figures"]
    again = cembench("verify", record, run)
    assert again.code == 0, again.err


def test_samples_of_the_fast_engine_are_read_by_the_network_itself(trained, tmp_path):
    chosen = ["attacks=[]", "density=null", "sanity=null", "curve=null", "engine=fast"]
    plan = "samples={count: 20, samplers: [rcs, maxent], extractor: {name: lite0, size: 32}}"
    protocol = load_protocol("quick", [*chosen, plan])
    record, path = evaluate(trained, protocol, folder=tmp_path, save_samples=True)
    assert record.error is None
    assert [item for item in verify_record(path, trained) if not item.agrees] == []


def test_untouched_protocols_do_not_mention_engines():
    values = load_protocol("standard").dump()
    assert "engine" not in values and all("on" not in attack for attack in values["attacks"])
    fast = load_protocol("standard", ["engine=fast"])
    assert fast.digest != load_protocol("standard").digest
    assert fast.dump()["engine"]["name"] == "fast" and Protocol.parse(fast.dump()) == fast
    assert [attack.title for attack in fast.attacks] == ["pgd", "autoattack-fast"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "fats"}, "did you mean 'fast'"),
        ({"engine": {"name": "fast", "precision": "int8"}}, "precision"),
        ({"engine": "fast", "passes": 20}, "leave it plain"),
        ({"attacks": [{"name": "pgd", "on": "some"}]}, "on"),
    ],
)
def test_wrong_engines_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Protocol.parse({"name": "x", "attacks": ["pgd"], **change})


def test_the_official_randomised_version_stays_official():
    settings = {
        "name": "x",
        "engine": "fast",
        "attacks": [{"name": "autoattack", "version": "rand"}],
    }
    assert Protocol.parse(settings).attacks[0].title == "autoattack-rand"
    assert engines.parse("plain").name == "plain"


class NotFinite(nn.Module):
    """A network that returns NaN as soon as it is attacked."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        out = self.layer(x.flatten(1))
        return out * torch.nan if x.requires_grad else out


def test_networks_that_return_nan_are_named_under_the_fast_engine_too(trained):
    split = load_checkpoint(trained)[1].data.load("test").take(torch.arange(24))
    protocol = Protocol.parse({"name": "x", "attacks": ["pgd"], "engine": "fast"})
    threat = load_checkpoint(trained)[1].threat
    model = NotFinite()
    split = replace(split, labels=model(split.pixels()).argmax(1))
    with pytest.raises(ModelError, match="not finite under pgd"):
        attack_split(model, split, torch.arange(24), protocol, threat)


def test_what_broke_an_image_before_is_kept_as_evidence(
    cembench, standard, tmp_path, short_autoattack
):
    run = tmp_path / "run"
    shutil.copytree(standard.parent, run)
    more = [{"name": "pgd", "label": "more", "on": "survivors"}]
    attacks = ["pgd", *more, {"name": "autoattack", "on": "survivors"}]
    chosen = [f"attacks={json.dumps(attacks)}", *NOTHING[1:], "engine=plain"]
    options = [option for value in chosen for option in ("--set", value)]
    done = cembench("eval", run, *options, "--limit", 16, "--save-adversarial")
    assert done.code == 0, done.err
    (record,) = (run / "eval").glob("*.json")
    figures = json.loads(record.read_text())["figures"]
    assert figures["autoattack-rest"]["correct"] == figures["worst_case"]["correct"]
    assert "autoattack" not in figures and figures["more-rest"]["won"]["before"] > 0
    assert cembench("verify", record, run).code == 0


class Limited(nn.Module):
    """A linear network on a device that holds eight images at a time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        if len(x) > 8 and x.requires_grad:
            raise torch.OutOfMemoryError
        return self.layer(x.flatten(1))


def test_what_does_not_fit_into_memory_is_attacked_in_halves(trained):
    torch.manual_seed(0)
    metadata = load_checkpoint(trained)[1]
    split = metadata.data.load("test").take(torch.arange(30))
    model = Limited()
    split = replace(split, labels=model(split.pixels()).argmax(1))
    protocol = Protocol.parse({"name": "x", "attacks": [{"name": "pgd", "start": "data"}]})
    with collected_warnings() as warnings:
        found = attack_split(model, split, torch.arange(30), protocol, metadata.threat)
    assert sum(warnings.values()) == 3 and all("in halves" in text for text in warnings)
    model.forward = lambda x: model.layer(x.flatten(1))
    expected = attack_split(model, split, torch.arange(30), protocol, metadata.threat)
    assert (found["pgd_broken"] == expected["pgd_broken"]).all() and found["pgd_broken"].any()


def test_attacks_on_survivors_spare_the_others_and_lose_no_verdict(standard):
    model, metadata = load_checkpoint(standard)
    split = metadata.data.load("test").take(torch.arange(60))
    found = {}
    for on in ("all", "survivors"):
        strong = {"name": "pgd", "label": "strong", "steps": 20, "on": on}
        attacks = [{"name": "pgd", "steps": 2}, strong]
        protocol = Protocol.parse({"name": "x", "attacks": attacks})
        found[on] = attack_split(model, split, torch.arange(60), protocol, metadata.threat)
    first = found["all"]["pgd_broken"]
    rest = found["survivors"]
    assert 0 < first.sum() < 60
    assert (rest["strong-rest_broken"] >= first).all()
    assert ((rest["strong-rest_by"] == "before") == first).all()
    assert (rest["strong-rest_broken"] == (first | found["all"]["strong_broken"])).mean() > 0.95
    assert rest.loc[first, "strong-rest_norm"].equals(rest.loc[first, "pgd_norm"])


def test_bench_prints_rows(cembench):
    options = ["--model", "{name: small_cnn, width: 4}", "--batch", 8, "--rounds", 1, "--json"]
    done = cembench("bench", "train", "sample", *options)
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [row["work"] for row in rows] == ["train at", "sample rcs"]
    for row in rows:
        assert {"work", "model", "ratio", "agreement", "roofline", "memory_ratio"} <= set(row)
        assert row["ratio"] > 0 and 0 <= row["agreement"] <= 1


def test_bench_compares_verdicts_seed_by_seed(cembench, monkeypatch):
    monkeypatch.setattr(networks, "EPOCHS", 1)
    monkeypatch.setattr(networks, "SHAPE", (3, 16, 16))
    monkeypatch.setitem(networks.METHODS["robust"]["negatives"], "steps", 1)
    small = ("--model", "{name: small_cnn, width: 4}")
    done = cembench("bench", "pgd", *small, "--images", 16, "--seeds", 2, "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [row["model"] for row in rows] == ["robust", "standard"]
    for row in rows:
        assert row["agreement"] == round(1 - row["discordant"] / 32, 4) and row["seeds"] == 2


def test_bench_attacks_checkpoints_and_counts_the_verdicts_that_differ(cembench, trained, standard):
    runs = [word for run in (trained, standard) for word in ("--checkpoint", run)]
    done = cembench("bench", "pgd", *runs, "--images", 24, "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [row["model"] for row in rows] == ["tiny", "run"]
    assert all(row["network"] == "small_cnn (width 8)" and row["images"] == 24 for row in rows)
    assert all(row["agreement"] == round(1 - row["discordant"] / 24, 4) > 0.7 for row in rows)
    assert rows[0]["robust_acc"] > rows[1]["robust_acc"]
    done = cembench("bench", "train", "--checkpoint", trained)
    assert done.code == 2 and "--checkpoint: train attacks none" in done.err


@pytest.mark.parametrize("options", [["train", "--method", "cem"], ["sample", "--sampler", "cs"]])
def test_bench_names_what_it_has_no_reference_for(cembench, options):
    done = cembench("bench", *options)
    assert done.code == 2 and "no plain loop for" in done.err
