"""Every figure of a record computed again, from what was kept beside it."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.evidence import samples_folder
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.recount import recount
from cembench.seal import UNSEALED, seal

SAMPLES = "count: 40, batch_size: 25, samplers: [{name: rcs, steps: 3}, {name: ta, steps: 3}, sgld]"
PLAN = [
    "sanity={images: 40, steps: 2, queries: 10}",
    "curve={attack: {steps: 2}}",
    "attacks=[{name: pgd, steps: 3}]",
    f"samples={{{SAMPLES}}}",
    "density={steps: 2}",
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
    return {row.figure: row for row in recount(path, path.parent.parent)}


def differing(path):
    return {figure for figure, row in again(path).items() if not row.agrees}


def touch(path, *changes):
    record = json.loads(path.read_text())
    for place, value in changes:
        *outer, last = place.split("/")
        section = record
        for key in outer:
            section = section[int(key) if isinstance(section, list) else key]
        section[last] = value
    path.write_bytes(seal(json.dumps(record | {"seal": UNSEALED}).encode()))


def spoil(path, key, change, sampler="rcs-gaussian"):
    file = samples_folder(path) / f"{sampler}.1.safetensors"
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
    ):
        assert rows[f"{group}: values that agree"].recounted > fewest
    assert rows["samples ta-gaussian: read as their logits say"].recounted == 40


def test_every_value_that_was_touched_up_is_found(kept):
    touches = {
        "gradients": "run",
        "threat/eps": "run",
        "figures/pgd/low": "intervals and stages",
        "figures/pgd/won/pgd": "intervals and stages",
        "generation/floor/fd": "samples",
        "generation/samplers/rcs-gaussian/samples/kid": "samples rcs-gaussian",
        "generation/samplers/rcs-gaussian/seeds/recall": "samples rcs-gaussian",
        "generation/samplers/ta-gaussian/own_acc": "samples ta-gaussian",
        "generation/samplers/sgld-buffer/gain": "samples sgld-buffer",
        "density/calibration/ece": "density",
        "density/outside/noise/log_px/auroc": "density",
        "density/pushed/ta/accuracy/correct": "density",
        "sanity/4/figure": "sanity",
        "curve/3/correct": "curve",
    }
    touch(
        kept, *((place, 1 if place.endswith(("t", "s", "won/pgd")) else 0.875) for place in touches)
    )
    found = {figure for figure in differing(kept) if not figure.endswith("values that agree")}
    places = {
        place: place.replace("/", ".").removeprefix("figures.").removeprefix("generation.")
        for place in touches
    }
    for place, group in touches.items():
        places[place] = places[place].removeprefix(f"samplers.{group.removeprefix('samples ')}.")
        places[place] = places[place].removeprefix(f"{group}.")
    assert found == {f"{group}: {places[place]}" for place, group in touches.items()}


def test_samples_that_were_exchanged_are_found(kept):
    spoil(kept, "images", lambda images: 255 - images)
    found = differing(kept)
    assert {"samples rcs-gaussian: samples.kid", "samples rcs-gaussian: samples.nearest"} <= found
    assert "samples rcs-gaussian: read as their logits say" in found
    assert not any(figure.startswith("samples ta") for figure in found)


def test_samples_that_were_not_kept_are_an_error(cembench, kept):
    file = samples_folder(kept) / "ta-gaussian.0.safetensors"
    file.unlink()
    result = cembench("verify", kept, kept.parent.parent)
    assert result.code == 2 and str(file) in result.err and "--save-samples" in result.err
    shutil.rmtree(samples_folder(kept))
    result = cembench("verify", kept, kept.parent.parent)
    assert result.code == 2 and "--save-samples" in result.err
