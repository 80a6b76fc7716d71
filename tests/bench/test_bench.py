"""The benchmark's meters: what is counted, what a pass costs, and what has become worse."""

import json
from collections import Counter

import pytest
import torch
from torch import nn

import cembench.bench.counts as counts
from cembench.bench.calls import Calls
from cembench.bench.compare import worse
from cembench.bench.machine import machine
from cembench.bench.passes import BareRate, Counted, CountedEngine, Passes
from cembench.models.engine import Fast, Plain


@pytest.mark.parametrize(
    ("block", "operations", "synchronisations"),
    [
        (lambda x: x + x, 1, 0),
        (lambda x: (x > 0).any().item(), 3, 1),
        (lambda x: x[x[:, 0] > 0], 3, 1),
        (lambda x: x[torch.tensor([0, 1])], 1, 0),
        (lambda x: x.masked_fill_(x > 2, 0), 2, 0),
        (lambda x: (x > 0).nonzero(), 2, 1),
        (lambda x: x.sum(1).tolist(), 1, 1),
    ],
)
def test_operators_and_what_makes_the_host_wait_are_counted(block, operations, synchronisations):
    x = torch.rand(4, 3) + 0.1
    with Calls() as calls:
        block(x)
    assert calls.operations >= operations and calls.synchronisations == synchronisations
    assert calls.flops == 0


def test_filling_under_a_mask_does_not_wait_but_copying_under_one_does():
    x, mask = torch.zeros(4), torch.arange(4) > 1
    with Calls() as calls:
        x[mask] = 1
    assert calls.synchronisations == 0 and x.tolist() == [0, 0, 1, 1]
    with Calls() as calls:
        x[mask] = torch.tensor([2.0, 3.0])
    assert calls.synchronisations > 0 and x.tolist() == [0, 0, 2, 3]


def test_backward_passes_are_counted_and_cost_as_much_as_forward_passes():
    layer = nn.Conv2d(2, 4, 3).requires_grad_(False)
    x = torch.rand(1, 2, 8, 8)
    with Calls() as forward:
        layer(x)
    with Calls() as both:
        torch.autograd.grad(layer(x.requires_grad_()).sum(), x)
    assert forward.flops == 2 * (2 * 9) * (4 * 36) and both.flops == 2 * forward.flops
    assert both.operations > forward.operations


def test_passes_of_a_network_and_of_its_surrogate_are_priced_on_the_bare_network(monkeypatch):
    layer = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    layer.eval().requires_grad_(False)
    x, passes = torch.rand(6, 1, 8, 8), Passes()
    model = Counted(layer, passes)
    assert CountedEngine.parse({"inner": "plain"}).prepare(model, x) is model
    fast = CountedEngine(inner=Fast(precision="fp32")).prepare(model, x)
    assert torch.allclose(fast(x), layer(x), atol=1e-5)
    model(x[:3])
    fast(x.requires_grad_())
    assert passes.batches == Counter({(6, False): 1, (3, False): 1, (6, True): 1})
    assert passes.operations(1, 10) == 9 + 60
    bare = BareRate(layer, Plain(), x.detach(), "cpu")
    monkeypatch.setattr(bare, "_timed", lambda form, x, gradient: len(x) * (3 if gradient else 1))
    bare.measure([passes])
    assert len(bare._times) == 2 * 4  # of 1, 2, 4 and 8 images
    assert bare.seconds(passes) == 6 + 3 + 18
    passes.add(16, True)  # more than was timed
    assert bare.seconds(passes) == 27 + 48


@pytest.fixture
def short(monkeypatch):
    """Count few steps of few loops."""
    chosen = {"apgd-ce": counts.LOOPS["apgd-ce"], "square": counts.LOOPS["square"]}
    loops = {name: (loop, 10, targets) for name, (loop, _, targets) in chosen.items()}
    monkeypatch.setattr(counts, "LOOPS", loops)
    monkeypatch.setattr(counts, "LEAVING", ("apgd-ce",))
    monkeypatch.setattr(counts, "STEPS", 5)
    monkeypatch.setattr(counts, "TRAINED", counts.ATTACKED)


def test_counts_are_the_same_each_time_and_fail_against_lower_ones(cembench, short, tmp_path):
    first = cembench("bench", "counts", "--json")
    assert first.code == 0, first.err
    rows = json.loads(first.out)
    by_name = {(row["work"], row["precision"]): row for row in rows}
    assert by_name["apgd-ce linf", "fp32"]["passes"] == pytest.approx(2 * 11 / 10, abs=0.01)
    assert by_name["square linf", "fp32"]["passes"] == pytest.approx(11 / 10)
    assert 20 < by_name["train at", "fp32"]["passes"] < 24
    assert by_name["apgd-ce linf, images leave", "fp32"]["passes"] < 2.2
    file = tmp_path / "counts.json"
    file.write_text(first.out)
    again = cembench("bench", "counts", "--json", "--compare", file)
    assert (again.code, again.err) == (0, "") and json.loads(again.out) == rows
    rows[0]["operations"] *= 0.8
    file.write_text(json.dumps(rows))
    worse = cembench("bench", "counts", "--compare", file)
    assert worse.code == 1
    (line,) = worse.err.splitlines()
    assert "apgd-ce linf, small_cnn (width 4), fp32: operations" in line


ROW = {"work": "pgd", "network": "n", "images": 8, "precision": "fp32"}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"operations": 100.0}, {"operations": 119.0}, False),
        ({"operations": 100.0}, {"operations": 121.0}, True),
        ({"synchronisations": 0.0}, {"synchronisations": 0.04}, False),
        ({"synchronisations": 0.0}, {"synchronisations": 1.0}, True),
        ({"passes": 2.0, "ratio": 5.0}, {"passes": 2.0, "ratio": 3.9}, True),
        ({"passes": 2.0, "ratio": 5.0}, {"passes": 2.0, "ratio": 4.1}, False),
    ],
)
def test_a_count_is_worse_if_it_rose_by_a_fifth_and_a_ratio_if_it_fell_by_one(
    before, after, expected
):
    other = {**ROW, "work": "apgd", "operations": 1.0}
    found = worse([ROW | after, other], [ROW | before], ratios=True)
    assert bool(found) == expected
    if "ratio" in before:
        assert worse([ROW | after], [ROW | before], ratios=False) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("{}", "not a list of rows"),
        ("[]", "no row has a count that the file has as well"),
        (json.dumps([{"work": "train at", "ratio": 2}]), "for ratios give --ratios"),
    ],
)
def test_files_that_cannot_be_compared_with_are_named(cembench, short, tmp_path, text, message):
    file = tmp_path / "counts.json"
    file.write_text(text)
    done = cembench("bench", "counts", "--compare", file)
    assert done.code == 2 and message in done.err.splitlines()[-1]


def test_the_network_and_the_images_are_settings(cembench):
    options = ["--data", "digits", "--batch", 4, "--rounds", 1]
    done = cembench("bench", "train", "--model", "{name: small_cnn, width: 4}", *options)
    assert done.code == 0, done.err
    assert "| train at | new | small_cnn (width 4) | 4 |" in done.out
    place = machine("cpu")
    assert done.out.splitlines()[-1].startswith(f"processor: {place['processor']}, threads: ")
    wrong = cembench("bench", "train", "--model", "{name: small_cnn, wdth: 4}")
    assert wrong.code == 2 and "did you mean 'width'" in wrong.err
    wrong = cembench("bench", "train", "--data", "digit")
    assert wrong.code == 2 and "did you mean 'digits'" in wrong.err
