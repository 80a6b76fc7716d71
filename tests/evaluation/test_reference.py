"""The reference checkpoints: small, checkable by anybody, and guarded by the gate."""

import json
from pathlib import Path

import pytest
import torch

from cembench.evaluation.gate.baseline import load_baseline
from cembench.evaluation.verify import verify_record
from cembench.models.checkpoint import load_checkpoint, save_checkpoint

BASELINE = Path(__file__).parents[2] / "leaderboards" / "reference" / "baseline.yaml"
ROWS = load_baseline(BASELINE).rows


@pytest.mark.parametrize("name", ROWS)
def test_every_figure_of_a_reference_checkpoint_can_be_computed_again(name):
    checkpoint = BASELINE.parent / ROWS[name].checkpoint
    (record,) = (checkpoint.parent / "eval").glob("baseline-*.json")
    assert checkpoint.stat().st_size < 1_000_000
    assert [row for row in verify_record(record, checkpoint) if not row.agrees] == []


def test_a_weakened_reference_checkpoint_is_a_regression_under_autoattack(
    cembench, tmp_path, short_autoattack
):
    model, metadata = load_checkpoint(BASELINE.parent / ROWS["at"].checkpoint)
    torch.manual_seed(0)
    weights = {
        name: value + 0.03 * torch.randn_like(value) if name.endswith("weight") else value
        for name, value in model.state_dict().items()
    }
    save_checkpoint(tmp_path / "weak.safetensors", weights, metadata)
    weak = f"at={tmp_path / 'weak.safetensors'}"
    result = cembench("check", weak, "--baseline", BASELINE, "--json", "--allow-changed-software")
    outcomes = {row["metric"]: row for row in json.loads(result.out)}
    assert result.code == 1 and outcomes["clean"]["verdict"] != "regression"
    for figure in ("autoattack-sampled", "worst_case"):
        assert outcomes[figure]["verdict"] == "regression"
        assert outcomes[figure]["p_value"] < 0.001 and len(outcomes[figure]["lost"]) > 10
    assert "regression" in result.err
