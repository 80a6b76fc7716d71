"""Counterfactuals in protocols: closed forms in the table, evidence, and files of before."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import cembench as cb
from cembench.energy.threat import Threat
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.verify import verify_record
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.layout import RunLayout
from tests.conftest import NOTHING
from tests.support.attacks import linear_case, run

TITLE = "counterfactual-l2-1"


def plan(*more):
    return load_protocol("quick", [*NOTHING, *more, "batch_size=16"], limit=40)


def test_distances_in_the_table_are_those_to_the_boundary():
    model, split, distance = linear_case(2, "l2")
    small, large = float(distance.median()), 2 * float(distance.max())
    asked = {"eps": [small, large], "confidence": 0.0, "steps": 40}
    table = run(model, split, Threat(norm="linf", eps=0.1), counterfactuals=asked)
    near, far = (f"counterfactual-l2-{eps:.6g}" for eps in (small, large))
    assert table[f"{far}_reached"].all()
    found = torch.from_numpy(table[f"{far}_norm"].to_numpy(copy=True))
    torch.testing.assert_close(found, distance, rtol=2e-3, atol=1e-6)
    apart = (distance - small).abs().numpy() > 1e-3
    assert (table[f"{near}_reached"] == (distance < small).numpy())[apart].all()
    first = table[f"{near}_reached"]
    assert (table[f"{near}_norm"] == table[f"{far}_norm"])[first].all()


def test_random_classes_are_the_same_for_all_networks_and_never_the_own():
    asked = {"eps": [0.5], "target": "random", "steps": 1}
    tables = []
    for classes in (5, 5):
        model, split, _ = linear_case(classes, "l2")
        model.weight.data += 0.1 * len(tables)
        tables.append(run(model, split, Threat(norm="linf", eps=0.1), counterfactuals=asked))
    targets = [table["counterfactual_target"] for table in tables]
    assert (targets[0] == targets[1]).all() and targets[0].nunique() == 5
    assert not (targets[0] == tables[0]["label"]).any()


@pytest.fixture
def evaluated(copy):
    asked = "counterfactuals={eps: [0.2, 1], confidence: 0.6, steps: 10}"
    return evaluate(copy, plan(asked), save_samples=True)


def test_a_record_has_them_and_verify_recomputes_them_from_what_was_kept(evaluated, copy):
    record, path = evaluated
    found = record.counterfactuals
    assert list(found.balls) == ["counterfactual-l2-0.2", TITLE]
    near, far = found.balls.values()
    assert near.reached.correct <= far.reached.correct and far.reached.images == 40
    assert (near.scores is None and far.distance is None) or far.distance <= 1
    assert found.originals.confidence < near.confidence <= far.confidence
    assert RunLayout.picture(path, TITLE).exists()
    rows = verify_record(path, copy.parent)
    assert all(row.agrees for row in rows)
    file = RunLayout.samples(path) / f"{TITLE}.1.safetensors"
    kept = load_file(file)["images"]
    save_file({"images": kept + 0.01}, file)
    assert not all(row.agrees for row in verify_record(path, copy.parent))
    save_file({"images": kept[:3].contiguous()}, file)
    with pytest.raises(CembenchError, match="another shape"):
        verify_record(path, copy.parent)
    file.unlink()
    with pytest.raises(CembenchError, match="evaluate with --save-samples"):
        verify_record(path, copy.parent)


def test_without_evidence_the_record_says_which_option_keeps_it(copy):
    _, path = evaluate(copy, plan("counterfactuals={eps: [0.5], steps: 2}"))
    with pytest.raises(CembenchError, match="--save-samples"):
        verify_record(path, copy.parent)


def test_they_are_in_tables_and_on_the_page(evaluated, cembench, copy, tmp_path):
    text = cembench("show", evaluated[1]).out
    assert "Counterfactuals" in text and "l2 0.2" in text
    assert cembench("report", copy.parent, "--out", tmp_path / "page").code == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert '<section id="counterfactuals">' in page and TITLE in page
    cembench("leaderboard", copy.parent, "--out", tmp_path / "boards")
    (csv,) = (tmp_path / "boards").glob("*linf*.csv")
    assert f"{TITLE}_reached" in csv.read_text().splitlines()[0]


def test_protocols_and_records_without_them_are_as_before(copy):
    quick = load_protocol("quick")
    assert "counterfactuals" not in quick.dump() and quick.digest == quick.digest
    record, path = evaluate(copy, plan("attacks=[{name: pgd, steps: 1}]"))
    assert record.counterfactuals is None
    assert "counterfactuals" not in json.loads(path.read_text())


def test_a_network_without_a_gradient_has_none():
    class Steps(torch.nn.Module):
        def forward(self, x):
            return (x.flatten(1)[:, :4] * 4).round().detach()

    x, y = torch.rand(24, 1, 4, 4), torch.arange(24) % 4
    record = cb.evaluate(
        Steps(), (x, y), {"counterfactuals": {"eps": [1.0]}}, threat="l2 0.5", trust_pixels=True
    )
    assert record.counterfactuals is None and "counterfactuals" in record.not_applicable


@pytest.mark.parametrize("eps", ["[]", "[2, 1]", "[0]", "[100]"])
def test_radii_rise_and_are_in_pixels(eps, copy):
    with pytest.raises(ConfigError, match=r"counterfactuals\.eps"):
        evaluate(copy, plan(f"counterfactuals={{eps: {eps}}}"))
