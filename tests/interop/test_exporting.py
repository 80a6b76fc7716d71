"""Exports: what RobustBench, the Hugging Face hub and onnxruntime read is what we measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cembench.api import evaluate, load
from cembench.data.corruptions import COMMON
from cembench.evaluation.record import load_record, save_record
from cembench.evaluation.sections.threats import Threats, UnderThreat
from cembench.interop.exporting import export
from cembench.util.errors import CembenchError
from cembench.util.files.yaml import parse_yaml
from tests.conftest import images
from tests.support.records import corrupted

REFERENCE = Path("leaderboards/reference/at")
# The keys of RobustBench's model_info files, as its leaderboard reads them.
MODEL_INFO = {
    *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue"),
    *("architecture", "eps", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable"),
}


SEVERITY = next(iter(corrupted(9).severities.values()))


@pytest.fixture
def record() -> Any:
    (place,) = REFERENCE.glob("eval/standard-*.json")
    return load_record(place)


def test_robustbench_gets_the_figures_of_the_record(record: Any, tmp_path: Path) -> None:
    given = {"name": "A paper", "authors": "A. Author", "additional_data": False}
    path = export(REFERENCE, "robustbench", tmp_path, fields=given)
    assert path == tmp_path / "model_info" / "digits" / "Linf" / "at.json"
    info = json.loads(path.read_text())
    assert set(info) == MODEL_INFO and info | given == info
    assert info["clean_acc"] == f"{100 * record.figures['clean'].accuracy:.2f}"
    assert info["autoattack_acc"] == f"{100 * record.figures['autoattack'].accuracy:.2f}"
    assert "256 test images" in info["footnote"] and info["eps"] == "0.125"


def test_robustbench_gets_an_entry_per_norm_that_it_has(
    record: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    figures = record.figures
    below = {**figures, "autoattack": figures["autoattack"].model_copy(update={"correct": 9})}
    under = {
        f"{norm}-{eps}": UnderThreat(norm=norm, eps=eps, figures=found)
        for norm, eps, found in (("linf", 0.125, figures), ("l1", 2.0, below), ("l2", 0.5, below))
    }
    changed = {"counted": [*COMMON], "severities": dict.fromkeys("12345", SEVERITY)}
    changes = {
        "threats": Threats(under=under, union=None),
        "corruptions": corrupted(9).model_copy(update=changed),
    }
    several = record.model_copy(update=changes)
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes((REFERENCE / "model.safetensors").read_bytes())
    save_record(run / "eval" / "three.json", several, None)
    out = export(run, "robustbench", tmp_path / "out")
    assert out == tmp_path / "out" / "model_info" / "digits"
    found = {file.parent.name: json.loads(file.read_text()) for file in out.rglob("*.json")}
    corruptions = found.pop("corruptions")
    assert {norm: info["eps"] for norm, info in found.items()} == {"Linf": "0.125", "L2": "0.5"}
    assert "autoattack_acc" not in corruptions and corruptions["eps"] is None
    mean = several.corruptions.mean.accuracy
    assert corruptions["corruptions_acc"] == f"{100 * mean:.2f}"
    assert found["L2"]["autoattack_acc"] == f"{100 * 9 / 256:.2f}"
    assert "RobustBench has no data set digits" in caplog.text
    with pytest.raises(CembenchError, match="Linf and L2 and corruptions; give a folder"):
        export(run, "robustbench", tmp_path / "a.json")


def test_robustbench_takes_autoattack_alone(copy: Path, tmp_path: Path) -> None:
    evaluate(copy, protocol={"attacks": [{"name": "pgd", "steps": 2}], "limit": 20})
    with pytest.raises(CembenchError, match="RobustBench's figure is AutoAttack's"):
        export(copy, "robustbench", tmp_path)


def front_of(card: str) -> Any:
    _, front, rest = card.split("---\n", 2)
    return parse_yaml(front, "card"), rest


def test_the_hub_gets_weights_figures_and_samples(record: Any, tmp_path: Path) -> None:
    folder = export(REFERENCE, "huggingface", tmp_path / "hub", fields={"licence": "mit"})
    assert torch.equal(load(folder)(images()), load(REFERENCE)(images()))
    front, text = front_of((folder / "README.md").read_text())
    assert front["license"] == "mit" and front["datasets"] == ["digits"]
    (entry,) = front["model-index"][0]["results"]
    values = {metric["name"]: metric["value"] for metric in entry["metrics"]}
    for name, figure in record.figures.items():
        assert f"| {name} | {figure.accuracy:.2%} |" in text
        label = "clean" if name == "clean" else f"linf-0.125 {name}"
        assert values[f"{label} accuracy"] == pytest.approx(figure.accuracy, abs=1e-6)
    for check in record.sanity:
        assert f"| {check.name} |" in text
    assert record.weights_sha256 in text and "(samples.png)" in text
    assert (folder / "samples.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((folder / "config.json").read_text())["method"] == "at"
    assert load_record(folder / "record.json") == record


def test_the_card_parses_as_the_hub_parses_it(record: Any, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    folder = export(REFERENCE, "huggingface", tmp_path / "hub", fields={"licence": "mit"})
    found = hub.ModelCard.load(folder / "README.md").data
    assert found.license == "mit" and len(found.eval_results) == len(record.figures) == 4


def test_names_stay_text_in_the_card(tmp_path: Path) -> None:
    fields = {"name": "<script>alert(1)</script>", "authors": "A: B"}
    folder = export(REFERENCE, "huggingface", tmp_path / "hub", fields=fields)
    front, text = front_of((folder / "README.md").read_text())
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert front["model-index"][0]["name"] == fields["name"]


def test_onnx_answers_as_the_network_does(trained: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path = export(trained, "onnx", tmp_path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.shape[1:] for value in session.get_inputs()] == [[1, 8, 8]]
    for count in (1, 3, 20):
        x = images(count)
        (theirs,) = session.run(["logits"], {"images": x.numpy()})
        with torch.no_grad():
            ours = load(trained)(x).numpy()
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
    classes = session.get_modelmeta().custom_metadata_map["classes"].splitlines()
    assert classes == load(trained).metadata.classes


def test_encoders_are_exported_where_that_means_something(encoder: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(export(encoder, "onnx", tmp_path / "g.onnx"))
    (embedding,) = session.run(["embeddings"], {"images": images(4).numpy()})
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)
    alone = tmp_path / "alone" / "model.safetensors"
    alone.parent.mkdir()
    alone.write_bytes((encoder / "model.safetensors").read_bytes())
    with pytest.raises(CembenchError, match="no figures to export"):
        export(alone, "huggingface", tmp_path)


def test_what_cannot_be_exported_is_said(
    copy: Path, tmp_path: Path, cembench: Any, trained: Path
) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        ((copy, "--to", "robustbench"), "no figures to export; run `cembench eval`"),
        ((tmp_path / "none", "--to", "onnx"), "cannot read"),
        ((REFERENCE, "--to", "robustbench", "--set", "autors=me"), "did you mean 'authors'"),
        ((trained, "--to", "onnx", "--set", "name=x"), "no such field"),
        ((copy, "--to", "robustbench", "--record", next(REFERENCE.glob("eval/*.json"))), "another"),
    ):
        code, printed, err = cembench("export", *arguments, "--out", out)
        assert code == 2 and message in err and err.count("\n") == 1 and printed == ""
    assert not out.exists()


def test_the_record_with_most_images_is_taken(
    copy: Path, tmp_path: Path, short_autoattack: None
) -> None:
    attack = {"attacks": [{"name": "autoattack"}]}
    for limit in (6, 12):
        evaluate(copy, protocol={**attack, "limit": limit})
    info = json.loads(export(copy, "robustbench", tmp_path / "a.json").read_text())
    assert "on 12 test images" in info["footnote"]
    (small,) = (p for p in copy.parent.glob("eval/*.json") if load_record(p).protocol["limit"] == 6)
    info = json.loads(export(copy, "robustbench", tmp_path / "a.json", record=small).read_text())
    assert "on 6 test images" in info["footnote"]
