"""Files outlive code: what earlier versions of cembench wrote is read, resumed and verified."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cembench.evaluation.gate.baseline import load_baseline
from cembench.evaluation.gate.verdicts import load_verdicts
from cembench.evaluation.record import FORMAT
from cembench.evaluation.record.files import load_record, load_table
from cembench.evaluation.verify import verify_record
from cembench.models.checkpoint import load_checkpoint
from cembench.util.errors import CembenchError
from cembench.util.files.seal import UNSEALED, seal

FIXTURES = Path(__file__).parents[1] / "fixtures"
TODAY = FIXTURES / "format-4"
RECORDS = sorted(FIXTURES.glob("format-*/at/eval/*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parents[2].name}-{path.stem}")
def test_a_record_of_every_format_is_read_with_its_table(path):
    record, table = load_record(path), load_table(path)
    clean, pgd = record.figures["clean"], record.figures["pgd"]
    assert record.format == FORMAT and record.run == "at" and clean.images == 24
    assert clean.correct == (table["clean_pred"] == table["label"]).sum()
    assert pgd.correct == clean.correct - table["pgd_broken"].sum()
    if record.density is not None:
        assert record.density.outside["noise"]["log_px"].others == 24
        assert 0 <= record.density.pushed["pgd"].accuracy.accuracy <= 1


def test_records_of_all_formats_stand_in_one_ranking(cembench, tmp_path):
    for number in (1, 2, 3, 4):
        shutil.copytree(
            FIXTURES / f"format-{number}" / "at" / "eval", tmp_path / f"r{number}" / "eval"
        )
    result = cembench("leaderboard", tmp_path, "--out", tmp_path / "tables")
    assert result.code == 0, result.err
    tables = [pd.read_csv(path) for path in (tmp_path / "tables").glob("*linf*.csv")]
    assert sum(len(table) for table in tables) == len(RECORDS)


def test_a_later_format_is_read_where_it_says_no_more_and_named_where_it_does(tmp_path):
    values = json.loads(RECORDS[-1].read_text()) | {"seal": UNSEALED, "format": FORMAT + 1}
    path = tmp_path / "later.json"
    path.write_bytes(seal(json.dumps(values).encode()))
    assert load_record(path).figures["pgd"].images == 24
    path.write_bytes(seal(json.dumps(values | {"corruptions": {}}).encode()))
    with pytest.raises(
        CembenchError, match=f"format {FORMAT + 1} of a later cembench.*corruptions"
    ):
        load_record(path)


@pytest.mark.parametrize("number", [1, 4])
def test_a_checkpoint_of_every_format_is_read(number):
    model, metadata = load_checkpoint(FIXTURES / f"format-{number}" / "at")
    assert metadata.method == "at" and metadata.threat.eps == 0.125
    split = metadata.data.load("test")
    assert (model(split.pixels()).argmax(1) == split.labels).float().mean() > 0.8


@pytest.mark.parametrize("name", ["proto-d5ed3a", "baseline-2579b9"])
def test_figures_of_a_record_are_the_same_when_measured_again(name, tmp_path):
    run = shutil.copytree(TODAY / "at", tmp_path / "at")
    rows = verify_record(run / "eval" / f"{name}.json", run)
    assert len(rows) > 10 and [row for row in rows if not row.agrees] == []


def test_a_baseline_is_read_and_checked(cembench, tmp_path):
    folder = shutil.copytree(TODAY, tmp_path / "today")
    baseline = load_baseline(folder / "baseline.yaml")
    assert len(load_verdicts(folder / "baseline.yaml", baseline, "at")) == 24
    result = cembench("check", "--baseline", folder / "baseline.yaml", "--json")
    verdicts = {row["metric"]: row["verdict"] for row in json.loads(result.out)}
    assert "regression" not in verdicts.values() and "error" not in verdicts.values()


def test_an_interrupted_run_goes_on(cembench, tmp_path):
    shutil.copytree(TODAY / "half", tmp_path / "half")
    begun = (tmp_path / "half" / "history.csv").read_text().splitlines()
    settings = tmp_path / "half.yaml"
    settings.write_text((TODAY / "half" / "config.yaml").read_text())
    result = cembench("train", settings, "--out", tmp_path, "--name", "half", "--resume")
    assert result.code == 0, result.err
    rows = (tmp_path / "half" / "history.csv").read_text().splitlines()
    assert rows[: len(begun)] == begun and len(rows) == 5
    assert load_checkpoint(tmp_path / "half")[1].finished


def test_a_table_agrees_with_the_records_it_was_made_of(cembench, tmp_path):
    run = shutil.copytree(TODAY / "at", tmp_path / "at", ignore=shutil.ignore_patterns("base*"))
    for table in sorted((TODAY / "tables").glob("*.csv")):
        result = cembench("verify", table, run)
        assert result.code == 0, result.out + result.err
