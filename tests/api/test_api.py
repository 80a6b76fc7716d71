"""cembench from Python: the documented example, and networks that lie in memory alone."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import cembench
import cembench.api
import cembench.data.in_memory
from cembench.energy.threat import Threat
from cembench.util.errors import CembenchError, SamplingError
from tests.conftest import TINY, Linear, conv_net
from tests.support.stores import FewDigits

PGD = {"attacks": [{"name": "pgd", "steps": 3}], "limit": 24}


def test_the_documented_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_autoattack: None
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(cembench.api)
    assert outcome.attempted >= 15 and outcome.failed == 0
    assert doctest.testmod(cembench.data.in_memory).failed == 0


def test_every_name_is_there_and_none_needs_torch_until_it_is_used() -> None:
    for name in cembench.__all__:
        assert callable(getattr(cembench, name))
    assert set(cembench.__all__) <= set(dir(cembench))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        cembench.trian  # type: ignore[attr-defined]  # noqa: B018
    code = "import sys, cembench; cembench.CembenchError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_loaded_network_scores_what_its_checkpoint_scores(trained: Path, copy: Path) -> None:
    of_file = cembench.evaluate(copy, protocol=PGD)
    in_memory = cembench.evaluate(cembench.load(trained), protocol=PGD)
    for name, figure in of_file.figures.items():
        assert figure.correct == in_memory.figures[name].correct
    assert in_memory.weights_sha256 == of_file.weights_sha256
    assert of_file.checkpoint_sha256 and not in_memory.checkpoint_sha256


def test_a_network_in_memory_stays_as_it_was(tmp_path: Path) -> None:
    net = conv_net()
    net[0].eval()
    modes = [module.training for module in net.modules()]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    generator = torch.random.get_rng_state()
    record = cembench.evaluate(net, "digits", PGD, threat=Threat(norm="l2", eps=0.5))
    assert str(record.threat) == "l2-0.5" and record.run == "Sequential" and record.error is None
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_what_is_kept_of_a_network_in_memory(tmp_path: Path) -> None:
    first = cembench.evaluate(Linear(64, 10), "digits", PGD, out=tmp_path / "mine")
    (record,) = (tmp_path / "mine" / "eval").glob("*.json")
    assert record.with_suffix(".parquet").exists()
    second = cembench.evaluate(Linear(64, 10, seed=1), "digits", PGD, out=tmp_path / "mine")
    assert first.weights_sha256 != second.weights_sha256
    assert [board.stem for board in cembench.leaderboard([tmp_path])] == ["digits-linf-0.125"]
    (board,) = cembench.leaderboard([first.model_copy(update={"run": "<b>"}), second])
    assert len(board.table) == 2 and "&lt;b&gt;" in board._repr_html_()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Linear(64, 7), "expected 1×10 logits"),
        (Linear(63, 10), "does not take"),
        (nn.Sequential(Linear(64, 10), nn.Softmax(1)), "probabilities, not logits"),
    ],
)
def test_networks_that_break_the_contract(net: nn.Module, message: str) -> None:
    with pytest.raises(CembenchError, match=message):
        cembench.evaluate(net, "digits", PGD)


def test_what_cannot_be_known_is_asked_for(trained: Path) -> None:
    with pytest.raises(CembenchError, match="data: say which data set"):
        cembench.evaluate(Linear(64, 10), protocol=PGD)
    with pytest.raises(CembenchError, match="says its data"):
        cembench.evaluate(trained, "digits", PGD)
    with pytest.raises(CembenchError, match="did you mean 'digits'"):
        cembench.evaluate(Linear(64, 10), "digit", PGD)


def test_samples_of_memory_and_file_are_the_same(trained: Path) -> None:
    ours = cembench.sample(cembench.load(trained), "rcs", 12, steps=4, seed=3)
    theirs = cembench.sample(trained, {"name": "rcs", "steps": 4}, 12, seed=3)
    assert torch.equal(ours.images, theirs.images) and ours.images.shape == (12, 1, 8, 8)
    assert set(cembench.sample(trained, "ta", 12, steps=2, label=4).labels.tolist()) == {4}
    with pytest.raises(CembenchError, match="label: 10 is no class; give 0 to 9"):
        cembench.sample(trained, "ta", 12, steps=2, label=10)
    with pytest.raises(SamplingError, match="no replay buffer"):
        cembench.sample(cembench.load(trained), "rcs", 4, steps=2, start="buffer")


def test_configs_may_be_files_mappings_or_settings(tmp_path: Path) -> None:
    from cembench.training.config import parse_experiment
    from cembench.util.files.yaml import to_yaml

    short = TINY | {"epochs": 1, "data": FewDigits.name}
    (tmp_path / "tiny.yaml").write_text(to_yaml(short))
    files = [
        cembench.train(config, tmp_path / str(number))
        for number, config in enumerate(
            [
                tmp_path / "tiny.yaml",
                str(tmp_path / "tiny.yaml"),
                short,
                parse_experiment(short, ""),
            ]
        )
    ]
    assert [file.parent.name for file in files] == ["tiny", "tiny", "at", "at"]
    assert len({file.read_bytes() for file in files}) == 1
    probed = cembench.probe(files[0], "linear", tmp_path, overrides=["epochs=1"])
    assert probed == tmp_path / "tiny-linear" / "model.safetensors"


def test_records_and_samples_are_shown_in_a_line_and_in_notebooks(copy: Path) -> None:
    plan = {**PGD, "sanity": {"images": 20}}
    record = cembench.evaluate(copy, protocol=plan)
    assert len(repr(record)) < 250 and "on digits, linf-0.125" in str(record)
    assert list(record.to_frame().loc["pgd", ["correct", "images"]]) == [
        record.figures["pgd"].correct,
        24,
    ]
    assert record._repr_html_().count("<table>") >= 2
    samples = cembench.sample(copy, "rcs", 4, steps=1)
    assert repr(samples).startswith("<Samples 4 images of 1×8×8: lse")
    assert samples._repr_png_().startswith(b"\x89PNG")
