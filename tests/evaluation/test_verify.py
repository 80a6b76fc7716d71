"""Every figure of a record computed again, from what was kept beside it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cembench.evaluation.diff import compared
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.verify import verify_record
from cembench.util.files.layout import RunLayout
from tests.support.records import touch

SAMPLES = "count: 40, batch_size: 25, samplers: [{name: rcs, steps: 3}, {name: ta, steps: 3}, sgld]"
SAMPLES += ", extractor: {name: lite0, size: 32}"
PLAN = [
    "sanity={images: 40, steps: 2, queries: 10}",
    "curve={attack: {steps: 2}}",
    "attacks=[{name: pgd, steps: 3}]",
    f"samples={{{SAMPLES}}}",
    "density={steps: 2}",
    "counterfactuals={eps: [1], steps: 5}",
    "corruptions={names: [fog], severities: [3]}",
    "batch_size=16",
]


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    run = tmp_path_factory.mktemp("evaluated") / "run"
    run.mkdir()
    shutil.copy(trained / "model.safetensors", run)
    plan = load_protocol("quick", PLAN, limit=40)
    _, path = evaluate(run, plan, save_adversarial=True, save_samples=True)
    return path


@pytest.fixture
def kept(evaluated, tmp_path):
    """A record with all its evidence; the checkpoint has no buffer for one of its samplers."""
    run = shutil.copytree(evaluated.parent.parent, tmp_path / "run")
    return Path(run) / "eval" / evaluated.name


def again(path):
    return {row.figure: row for row in verify_record(path, path.parent.parent)}


def differing(path):
    return {figure for figure, row in again(path).items() if not row.agrees}


def spoil(path, key, change, sampler="rcs-gaussian"):
    file = RunLayout.samples(path) / f"{sampler}.1.safetensors"
    values = load_file(file)
    save_file(values | {key: change(values[key]).contiguous()}, file)


def test_a_record_agrees_with_its_evidence_down_to_the_last_value(kept):
    rows = again(kept)
    assert {row.figure for row in rows.values() if not row.agrees} == set()
    record = json.loads(kept.read_text())
    assert record["generation"]["samplers"]["sgld-buffer"]["error"]
    for group, fewest in (
        ("run", 12),
        ("intervals and stages", 9),
        ("samples", 10),
        ("samples rcs-gaussian", 25),
        ("samples ta-gaussian", 25),
        ("samples sgld-buffer", 5),
        ("density", 60),
        ("sanity", 30),
        ("curve", 30),
        ("counterfactuals", 35),
    ):
        assert rows[f"{group}: values that agree"].again > fewest
    assert rows["samples ta-gaussian: read as their logits say"].again == 40


def test_every_value_that_was_touched_up_is_found(kept):
    touches = {
        "gradients": (1, "run: gradients"),
        "threat/eps": (0.875, "run: threat.eps"),
        "figures/pgd/low": (0.875, "intervals and stages: pgd.low"),
        "figures/pgd/won/pgd": (1, "intervals and stages: pgd.won.pgd"),
        "generation/floor/fd": (0.875, "samples: floor.fd"),
        "density/calibration/ece": (0.875, "density: calibration.ece"),
        "density/outside/noise/log_px/auroc": (0.875, "density: outside.noise.log_px.auroc"),
        "density/pushed/ta/accuracy/correct": (1, "density: pushed.ta.accuracy.correct"),
        "sanity/4/figure": (0.875, "sanity: 4.figure"),
        "curve/3/correct": (1, "curve: 3.correct"),
    }
    for sampler, value in (
        ("rcs-gaussian", "samples.kid"),
        ("rcs-gaussian", "seeds.recall"),
        ("ta-gaussian", "own_acc"),
        ("sgld-buffer", "gain"),
    ):
        place = f"generation/samplers/{sampler}/{value.replace('.', '/')}"
        touches[place] = 0.875, f"samples {sampler}: {value}"
    touch(kept, *((place, value) for place, (value, _) in touches.items()))
    found = {figure for figure in differing(kept) if not figure.endswith("values that agree")}
    assert found == {figure for _, figure in touches.values()}


def test_the_command_names_each_value_that_differs_and_how_many_agree(cembench, kept):
    touch(kept, ("generation/samplers/ta-gaussian/samples/fd", 1.5))
    result = cembench("verify", kept, kept.parent.parent)
    assert result.code == 1 and result.out.count("DIFFERS") == 2
    assert "| samples ta-gaussian: samples.fd | 1.5 |" in result.out
    total = next(line for line in result.out.splitlines() if "ta-gaussian: values" in line)
    count, agreeing = (int(cell) for cell in total.split("|")[2:4])
    assert agreeing == count - 1


def test_rounding_agrees_and_neither_counts_nor_missing_values_do():
    recorded = {"kid": 1.0, "gain": 0.0, "images": 30_000, "fd": [2.0, None], "start": "noise"}
    rounded = recorded | {"kid": 1.00005, "gain": 1e-7}
    assert all(row.agrees for row in compared("x", recorded, rounded))
    wrong = {"kid": 1.001, "gain": 1e-3, "images": 30_001, "fd": [2.0], "start": "data"}
    rows = compared("x", recorded | {"more": 1}, wrong)
    assert (rows[0].recorded, rows[0].again) == (7, 2)
    differing = {row.figure for row in rows[1:]}
    assert differing == {"x: kid", "x: gain", "x: images", "x: start", "x: more"}


def test_samples_that_were_exchanged_are_found(kept):
    spoil(kept, "images", lambda images: 255 - images)
    found = differing(kept)
    assert {"samples rcs-gaussian: samples.kid", "samples rcs-gaussian: samples.nearest"} <= found
    assert "samples rcs-gaussian: read as their logits say" in found
    assert not any(figure.startswith("samples ta") for figure in found)


def test_logits_that_are_not_those_of_the_samples_are_found(kept):
    """The share read as intended and log p(x) come from them."""
    spoil(kept, "logits", lambda logits: logits + 1)
    row = again(kept)["samples rcs-gaussian: read as their logits say"]
    assert (row.recorded, row.again) == (40, 25)


def test_classes_are_those_that_were_asked_for_whatever_the_files_say(kept):
    spoil(kept, "labels", lambda labels: labels.flip(0))
    assert differing(kept) == set()


@pytest.mark.parametrize("place", [RunLayout.samples, RunLayout.adversarial])
def test_one_flipped_bit_of_an_artifact_is_an_error(cembench, kept, place):
    (file, *_) = sorted(place(kept).iterdir())
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    result = cembench("verify", kept, kept.parent.parent)
    assert result.code == 2 and f"{file}: missing or damaged" in result.err


def test_samples_that_were_not_kept_are_an_error(cembench, kept):
    file = RunLayout.samples(kept) / "ta-gaussian.0.safetensors"
    file.unlink()
    result = cembench("verify", kept, kept.parent.parent)
    assert result.code == 2 and str(file) in result.err and "--save-samples" in result.err
    shutil.rmtree(RunLayout.samples(kept))
    result = cembench("verify", kept, kept.parent.parent)
    assert result.code == 2 and "--save-samples" in result.err


def test_the_weights_of_inception_are_given_as_in_an_evaluation(cembench, kept, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(kept.parent / "hub"))
    touch(kept, ("protocol/samples/extractor", {"name": "inception"}))
    for more, message in (
        ((), "pass it with --inception-weights FILE"),
        (("--inception-weights", kept.parent / "none"), "no such file"),
    ):
        result = cembench("verify", kept, kept.parent.parent, *more)
        assert result.code == 2 and message in result.err
