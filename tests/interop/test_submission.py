"""Entries for a shared board: honest ones are accepted, forged ones refused with the reason."""

import errno
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measures.counts import count
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.verify import verify_record
from cembench.interop.submission.accept import accept
from cembench.interop.submission.submit import submit
from cembench.samplers.draw import draw
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.files.tensors import read_tensors
from cembench.util.shared import sharing
from tests.conftest import made_once
from tests.interop.conftest import PLAN, entry_of
from tests.support.entries import Forger, survive


@pytest.fixture(scope="module")
def other(undefended, plan, shared):
    """An entry of another network; do not write to it."""
    return made_once(shared / "entries" / "other", lambda to: entry_of(undefended, plan, to))


@pytest.fixture(scope="module", autouse=True)
def shared_data():
    """Read images and the extractor once."""
    with sharing():
        yield


def test_an_honest_entry_is_accepted_and_shown_with_its_mark(cembench, honest, plan, tmp_path):
    board, page = tmp_path / "board", tmp_path / "page.md"
    options = ("--protocol", plan, "--board", board, "--report", page, "--device", "cpu")
    result = cembench("accept", honest, *options)
    assert result.code == 0, result.out
    assert result.out == page.read_text() and result.out.startswith("# honest: accepted\n")
    assert "&lt;b&gt;A&lt;/b&gt; \\| B" in result.out and "✗" not in result.out
    (record,) = RunLayout(board / "honest").records()
    assert record.read_bytes() == RunLayout(honest).records()[0].read_bytes()
    (picture,) = (board / "honest/samples").glob("*.png")
    assert picture.name.endswith("-rcs-gaussian.png")
    mark = json.loads((board / "honest/accepted.json").read_text())
    assert mark["outcome"] == "recounted" and mark["attacked"] == 64
    table = cembench("leaderboard", board, "--out", tmp_path / "boards").out
    assert "| accepted |" in table and "| recounted |" in table
    again = cembench("accept", honest, *options)
    assert again.code == 1 and "found taken" in again.out
    named = Path(shutil.copytree(honest, tmp_path / "named"))
    for name, reason in (("mine-now", "the same weights: expected none"), ("Honest", "same file")):
        Forger(named).facts(name=name)
        copied = cembench("accept", named, *options)
        assert copied.code == 1 and reason in copied.out
    assert sorted(place.name for place in board.iterdir()) == ["honest"]


def test_a_mark_is_that_of_one_record(cembench, forger, tmp_path):
    (forger.entry / "accepted.json").write_text(
        json.dumps({"name": "x", "outcome": "recounted", "record_sha256": "0" * 64})
    )
    assert "recounted" not in cembench("leaderboard", forger.entry, "--out", tmp_path / "b").out


@pytest.mark.parametrize("capable", [False, True])
def test_changed_verdicts(forger, refused, capable):
    rows = forger.table.index[forger.table["pgd_broken"]][:5]
    table = survive(forger.table, rows)
    figures = count(table, ["pgd"], {}, [str(digit) for digit in range(10)])
    forger.write(table, **({"figures": figures} if capable else {}))
    expected = "images of pgd without a success: expected 0, found 5"
    assert (expected if capable else "figure pgd: expected correct") in refused(forger.entry)


def test_changed_figures(forger, refused):
    figures = forger.record.figures
    better = figures["pgd"].model_copy(update={"correct": figures["pgd"].correct + 7})
    forger.write(figures={**figures, "pgd": better})
    assert "figure pgd: expected correct" in refused(forger.entry)


def test_changed_scores_of_samples(forger, refused):
    found = forger.record.generation
    figures = found.samplers["rcs-gaussian"]
    better = figures.samples.model_copy(update={"kid": figures.samples.kid / 2})
    changed = {"rcs-gaussian": figures.model_copy(update={"samples": better})}
    forger.write(generation=found.model_copy(update={"samplers": changed}))
    assert "samples rcs-gaussian: samples.kid" in refused(forger.entry)


def test_evidence_of_another_checkpoint(other, forger, refused, tmp_path):
    mine = (forger.entry / "model.safetensors", forger.record.weights_sha256)
    theirs = Forger(Path(shutil.copytree(other, tmp_path / "theirs")))
    shutil.copy(mine[0], theirs.entry)
    theirs.facts()
    assert "SHA-256 of the checkpoint" in refused(theirs.entry)
    theirs.checkpoint(mine[0], weights_sha256=mine[1])
    assert "column clean_pred: expected that of the evidence" in refused(theirs.entry)


def test_images_outside_the_ball(forger, refused):
    kept = read_tensors(RunLayout.adversarial(forger.path) / "pgd.safetensors")
    images = (kept["images"] * 2 - 0.5).clamp(0, 1)
    forger.images(images=images, bytes=(images * 255).round().to(torch.uint8))
    count = len(images)
    assert f"outside the ball or [0, 1]: expected 0, found {count}" in refused(forger.entry)
    forger.images(images=kept["images"], bytes=255 - kept["bytes"])
    assert "8-bit images of pgd that are not the rounded ones" in refused(forger.entry)


def test_duplicated_rows(forger, refused):
    kept = read_tensors(RunLayout.adversarial(forger.path) / "pgd.safetensors")
    forger.images(**{key: torch.cat([value, value[:2]]) for key, value in kept.items()})
    assert "images of pgd that are there twice: expected 0, found 2" in refused(forger.entry)
    table = forger.table
    forger.write(pd.concat([table[:54], table[:10]], ignore_index=True))
    assert "rows that are there twice: expected 0, found 10" in refused(forger.entry)


def test_fewer_images(forger, refused):
    table = forger.table[:50]
    figures = count(table, ["pgd"], {}, [str(digit) for digit in range(10)])
    forger.write(table, figures=figures)
    assert "rows of the table: expected 64, found 50" in refused(forger.entry)


def test_a_weaker_attack_under_the_same_name(forger, refused):
    values = forger.record.protocol
    weaker = {**values, "attacks": [{**values["attacks"][0], "steps": 1}]}
    forger.write(protocol=weaker, protocol_digest=Protocol.parse(weaker).digest)
    assert "attacks.0.steps is 1, not 10" in refused(forger.entry)
    forger.write(protocol=weaker, protocol_digest=Protocol.parse(values).digest)
    assert "digest of the protocol" in refused(forger.entry)


def test_fewer_images_by_a_limit_are_told(honest, not_attacked, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN.replace("64", "70"))
    verdict = accept(honest, protocols=[str(file)], seed=0)
    notes = [row.reason for row in verdict.checks.notes]
    assert verdict.accepted and any("expected 70" in note and "found 64" in note for note in notes)


def of_training(forger, number, count):
    """Return training images in place of samples."""
    images = forger.context().images.data.pixels(slice(12 * number, 12 * number + count))
    return {"images": (images * 255).round().to(torch.uint8)}


def of_more_steps(forger, number, count):
    """Return what another sampler makes of the same initial images."""
    return drawn(forger, number, steps=40)


def of_another_seed(forger, number, count):
    """Return samples of the same sampler that were drawn until they pleased."""
    return drawn(forger, number, more=77)


def drawn(forger, number, steps=5, more=0):
    from cembench.evaluation.extractors.features import to_uint8
    from cembench.evaluation.measures.samples import chunk_labels, chunk_seed

    context = forger.context()
    sampler = context.protocol.samples.samplers[0]
    y = list(chunk_labels(context, sampler))[number]
    other = sampler.model_copy(update={"steps": steps})
    found = draw(context.model, other, y, context.images, chunk_seed(context, number) + more)
    return {"images": to_uint8(found.images), "starts": to_uint8(found.starts)}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (of_training, "samples of rcs-gaussian: distance moved"),
        (of_more_steps, "samples of rcs-gaussian: distance moved"),
        (of_another_seed, "samples of rcs-gaussian: initial images"),
    ],
)
def test_samples_that_are_not_those_of_the_sampler(forger, refused, not_attacked, make, reason):
    for number in (0, 1):
        forger.samples(number, **make(forger, number, 12))
    forger.recount()
    assert reason in refused(forger.entry)


def test_successes_that_were_left_out(forger, refused):
    """Everything in the entry fits together, and `verify` agrees; only an attack can tell."""
    kept = read_tensors(RunLayout.adversarial(forger.path) / "pgd.safetensors")
    fewer = {key: value[::3].clone() for key, value in kept.items()}
    forger.images(**fewer)
    forger.recount()
    assert all(row.agrees for row in verify_record(forger.path, forger.entry))
    assert "pgd again: expected about as many anew as lost, found" in refused(forger.entry)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"licence": ""}, "licence"),
        ({"contact": " "}, "contact"),
        ({"contact": "a\nb"}, "contact"),
        ({"name": "../x"}, "name"),
        ({"format": 2}, "format 2, of a later cembench"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_what_an_entry_says_of_itself(forger, refused, change, reason):
    forger.facts(**change)
    assert reason in refused(forger.entry)


def test_what_a_keeper_would_refuse_is_refused_at_home(cembench, trained, honest, plan, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained / "model.safetensors", run)
    said = ("--licence", "MIT", "--contact", "me")
    to = tmp_path / "entry"
    assert "no figures" in cembench("submit", run, "--to", to, *said).err
    evaluate(run, load_protocol(str(plan), ["samples=null"]))
    assert "--save-adversarial" in cembench("submit", run, "--to", to, *said).err
    (record,) = RunLayout(run).records()
    evaluate(run, load_protocol(str(plan), ["samples=null"]), save_adversarial=True)
    assert "Missing option '--licence'" in cembench("submit", run, "--to", to).err
    assert "licence" in cembench("submit", run, "--to", to, "--licence", "", "--contact", "x").err
    result = cembench("submit", run, "--to", to, *said)
    assert result.code == 0 and result.out == f"{to}\n" and "has to allow it" in result.err
    before = sorted(file.name for file in to.rglob("*"))
    again = cembench("submit", run, "--to", to, *said)
    assert again.code == 2 and "give --force" in again.err
    assert cembench("submit", run, "--to", to, *said, "--force", "--name", "n").code == 0
    assert sorted(file.name for file in to.rglob("*")) == before
    assert cembench("submit", run, "--to", run, *said, "--force").err.count("choose another")
    (RunLayout.adversarial(record) / "pgd.safetensors").unlink()
    broken = cembench("submit", run, "--to", tmp_path / "none", *said)
    assert broken.code == 2 and "files of adversarial images" in broken.err
    assert not (tmp_path / "none").exists() and not list(tmp_path.glob(".none*"))


def test_a_full_disk_leaves_nothing_half_written(honest, plan, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    board = tmp_path / "board"
    monkeypatch.setattr(
        "cembench.interop.submission.accept._Inspection.inspect", lambda *args: None
    )
    monkeypatch.setattr("cembench.interop.submission.board.write_card", full)
    with pytest.raises(CembenchError, match="No space left on device; free some space"):
        accept(honest, board, protocols=[str(plan)])
    monkeypatch.setattr("cembench.interop.submission.submit.write_card", full)
    with pytest.raises(CembenchError, match="free some space"):
        submit(honest, tmp_path / "entry", licence="MIT", contact="x")
    assert not list(tmp_path.iterdir())


def test_what_is_not_the_fault_of_an_entry(cembench, honest, tmp_path):
    assert cembench("accept", tmp_path / "none").code == 2
    assert cembench("accept", honest, "--protocol", "none").code == 2
    result = cembench("accept", honest)
    assert result.code == 1 and "protocol: expected one of quick, rand, standard" in result.out
