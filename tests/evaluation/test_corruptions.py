"""Common corruptions in protocols: what the network says of them, files, resuming, extras."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import cembench as cb
from cembench.data.corruptions import ALEXNET, COMMON
from cembench.evaluation import corrupted
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measures import corruptions
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.statistics import wilson
from cembench.evaluation.verify import verify_record
from cembench.models.checkpoint import load_checkpoint
from cembench.reporting.leaderboard import build_boards
from cembench.reporting.page import write_report
from cembench.util.errors import CembenchError, ConfigError
from tests.conftest import NOTHING

FEW = "corruptions={names: [fog, contrast], severities: [1, 5]}"


def plan(*more, limit=40):
    return load_protocol("quick", [*NOTHING, *more, "batch_size=16"], limit=limit)


def test_cells_are_what_the_network_says_of_corrupted_images(copy):
    record, path = evaluate(copy, plan(FEW))
    found = record.corruptions
    assert found.title == "corruptions-2x2" and found.source == "cifar-c"
    assert list(found.cells) == ["fog", "contrast"] and found.counted == ["fog", "contrast"]
    model, metadata = load_checkpoint(copy)
    table = pd.read_parquet(path.with_suffix(".parquet"))
    whole = metadata.images("test").take(torch.from_numpy(table["index"].to_numpy(copy=True)))
    clean = (whole.pixels() * 255).round().byte()
    images = cb.corrupt(clean, "fog", 5, rows=table["index"].tolist()).float() / 255
    with torch.no_grad():
        out = model(images)
    assert (table["corrupted-fog-5_pred"] == out.argmax(1).numpy()).all()
    cell = found.cells["fog"]["5"]
    assert cell.correct == int((out.argmax(1) == whole.labels).sum()) and cell.images == 40
    assert cell.lse.mean == pytest.approx(float(out.logsumexp(1).mean()), rel=1e-5)
    low, high = found.severities.values()
    assert high.worst_case.correct <= min(c["5"].correct for c in found.cells.values())
    cells = [c.accuracy for row in found.cells.values() for c in row.values()]
    assert found.mean.accuracy == pytest.approx(np.mean(cells))
    assert found.mean.low < found.mean.accuracy < found.mean.high
    assert low.lse_change > high.lse_change and 0.5 < low.auroc < high.auroc
    assert found.mce is None and found.worst in found.counted
    assert all(row.agrees for row in verify_record(path, copy.parent))


def test_a_killed_evaluation_goes_on_with_the_next_corruption(copy, monkeypatch):
    made, change = [], corrupted.corrupt

    def dying(images, name, severity, **options):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append((name, severity, options["rows"][0]))
        return change(images, name, severity, **options)

    monkeypatch.setattr(corrupted, "corrupt", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(copy, plan(FEW))
    first = [*made]
    made.clear()
    monkeypatch.setattr(corrupted, "corrupt", lambda *a, **k: made.append(a[1:]) or change(*a, **k))
    record, _ = evaluate(copy, plan(FEW))
    assert (
        len(first) == 5 and len(made) == 12 - 4
    )  # the chunk's corruption that was cut is made anew
    monkeypatch.setattr(corrupted, "corrupt", change)
    again, _ = evaluate(copy, plan(FEW))
    assert again.corruptions == record.corruptions


def test_without_the_extra_a_mean_says_what_it_lacks(copy, monkeypatch, tmp_path):
    monkeypatch.setattr(corrupted, "without_extra", lambda: ["frost", "spatter"])
    record, path = evaluate(copy, plan("corruptions={extra: true}", limit=16))
    found = record.corruptions
    assert found.title == "corruptions-without-frost" and len(found.counted) == 14
    assert found.left_out == ["frost", "spatter"] and len(found.cells) == 17
    (warning,) = [text for text in record.warnings if "frost" in text]
    assert "14 corruptions, not 15" in warning and "cembench[corruptions]" in warning
    (board, *_) = build_boards([record])
    assert "corruptions-without-frost ↑" in board.shown and "corruptions_acc" not in board.table
    text = write_report([path.parent.parent], tmp_path / "page").read_text()
    assert '<section id="corruptions">' in text and "without frost, spatter" in text
    with pytest.raises(CembenchError, match="frost needs"):
        evaluate(copy, plan("corruptions={names: [frost]}"))


@pytest.fixture
def files(copy, tmp_path):
    """Return a folder as that of CIFAR-10-C: bright images at severity 1, black ones at 5."""
    split = load_checkpoint(copy)[1].images("test")
    folder = tmp_path / "digits-c"
    folder.mkdir()
    bytes_ = (split.pixels() * 255).round().byte().permute(0, 2, 3, 1).numpy()
    dark = [bytes_ // level if level < 5 else bytes_ * 0 for level in range(1, 6)]
    np.save(folder / "fog.npy", np.concatenate(dark))
    np.save(folder / "labels.npy", np.tile(split.labels.numpy(), 5).astype(np.uint8))
    return folder


def test_files_of_others_have_figures_under_their_own_name(copy, files):
    asked = f"corruptions={{source: files, root: {files}, names: [fog]}}"
    record, path = evaluate(copy, plan(asked))
    found = record.corruptions
    assert found.title == "digits-c-1x5" and found.source == "files"
    first, *_, last = found.cells["fog"].values()
    assert first.correct == found.clean.correct and last.lse.std == pytest.approx(0, abs=1e-5)
    assert len(record.inputs["corruptions"]) == 64
    assert all(row.agrees for row in verify_record(path, copy.parent))
    labels = np.load(files / "labels.npy")
    np.save(files / "labels.npy", (labels + 1) % 10)
    with pytest.raises(CembenchError, match="not the labels of these images"):
        evaluate(copy, plan(asked))
    np.save(files / "labels.npy", labels[:7])
    with pytest.raises(CembenchError, match="7 labels"):
        evaluate(copy, plan(asked))
    np.save(files / "fog.npy", np.load(files / "fog.npy")[:, :4])
    with pytest.raises(CembenchError, match="8×8×1 bytes are wanted"):
        evaluate(copy, plan(asked))
    (files / "fog.npy").write_bytes(b"no array")
    with pytest.raises(CembenchError, match="damaged"):
        evaluate(copy, plan(asked))
    (files / "fog.npy").unlink()
    with pytest.raises(CembenchError, match=r"fog.npy: missing; set corruptions.root"):
        evaluate(copy, plan(asked))


def test_mce_is_over_the_errors_of_a_baseline(copy):
    first, _ = evaluate(copy, plan(FEW))
    own = {name: round(1 - first.corruptions.accuracy(name), 6) for name in ("fog", "contrast")}
    half = {name: max(error, 0.01) / 2 for name, error in own.items()}
    asked = json.loads(json.dumps({"names": [*own], "severities": [1, 5], "baseline": half}))
    record, _ = evaluate(copy, Protocol.parse({**plan(FEW).dump(), "corruptions": asked}))
    wanted = np.mean([own[name] / half[name] for name in own])
    assert record.corruptions.mce == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(ConfigError, match="ImageNet's 1000 classes, not of 10"):
        evaluate(copy, plan("corruptions={baseline: alexnet}"))
    assert set(ALEXNET) == set(COMMON)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("{names: [fogg]}", "corruptions.names.0"),
        ("{names: [fog, fog]}", "each may be given once"),
        ("{severities: [5, 1]}", "severities must rise"),
        ("{severities: [6]}", "less than or equal to 5"),
        ("{source: files}", "corruptions.root"),
        ("{root: here}", "corruptions.root"),
        ("{baseline: {fog: 0.5}}", "corruptions.baseline: has no error for gaussian_noise"),
        ("{baseline: alexnet, severities: [1]}", "means of five severities"),
    ],
)
def test_wrong_settings_are_named(asked, text):
    with pytest.raises(ConfigError, match=text):
        plan(f"corruptions={asked}")


def test_what_asks_for_none_is_as_before(copy):
    protocol = plan("sanity={images: 4, steps: 1, queries: 1}", limit=4)
    record, path = evaluate(copy, protocol)
    assert record.corruptions is None and "corruptions" not in json.loads(path.read_text())
    assert "corruptions" not in protocol.dump() and "corruptions" not in record.inputs


def test_a_mean_of_images_that_are_all_right_is_no_certainty():
    table = pd.DataFrame({"label": [1] * 20, "corrupted-fog-1_pred": [1] * 20})
    found = corruptions._mean(table, ["fog"], [1])
    assert (found.low, found.high) == wilson(20, 20) and found.accuracy == 1
