"""Committed tables beside runs that were made again."""

import pandas as pd
import pytest

from cembench.evaluation.record.files import save_record
from cembench.reporting.leaderboard import build_boards, find_records, write_boards
from tests.support.records import both

RUNS = {"at.s0": 0, "at.s1": 1, "standard.s0": 0, "standard.s1": 1}
STEMS = ["digits-linf-0.125", "digits-samples-gaussian", "digits-linf-0.125-seeds"]


def make(folder, **changes):
    for name, seed in RUNS.items():
        method = name.split(".")[0]
        record = both(name, 50 + seed, 1 / 3 + seed, seed=seed, recipe=method, **changes)
        save_record(folder / name / "eval" / "standard.json", record, None)
    return folder


@pytest.fixture
def runs(tmp_path):
    """Runs made again, which took longer."""
    return make(tmp_path / "runs", seconds=9.0, train_seconds=8.0)


@pytest.fixture
def tables(tmp_path):
    records = find_records([make(tmp_path / "before", seconds=1.0, train_seconds=2.0)]).values()
    write_boards(build_boards(records), tmp_path / "tables")
    return tmp_path / "tables"


def edit(path, change):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)


@pytest.mark.parametrize("stem", STEMS)
def test_a_table_agrees_with_its_runs_made_again(cembench, tables, runs, stem):
    result = cembench("verify", tables / f"{stem}.csv", runs)
    assert result.code == 0 and "DIFFERS" not in result.out
    rows = 2 if stem.endswith("seeds") else 4
    assert f"| rows in both tables | {rows} | {rows} | agrees |" in result.out
    assert "| columns that agree |" in result.out


@pytest.mark.parametrize(
    ("stem", "column"),
    [
        ("digits-linf-0.125", "pgd_acc_low"),
        ("digits-linf-0.125", "weights_sha256"),
        ("digits-samples-gaussian", "kid"),
        ("digits-linf-0.125-seeds", "autoattack_acc_std"),
    ],
)
def test_a_cell_that_was_touched_up_is_found(cembench, tables, runs, stem, column):
    path = tables / f"{stem}.csv"

    def touch(table):
        table.loc[1, column] = "0.123456"
        return table

    edit(path, touch)
    result = cembench("verify", path, runs)
    assert result.code == 1 and result.out.count("DIFFERS") == 2
    assert f"| {column} of " in result.out and "| 0.123456 |" in result.out


def test_a_row_or_column_that_one_side_lacks_is_found(cembench, tables, runs):
    path = tables / "digits-samples-gaussian.csv"
    edit(path, lambda table: table[1:].drop(columns="kid"))
    result = cembench("verify", path, runs)
    assert result.code == 1 and "| rows in both tables | 4 | 3 | DIFFERS |" in result.out
    assert "row at.s0 rcs gaussian 0 | – | there | DIFFERS" in result.out
    assert "| kid of standard.s0 rcs gaussian 0 (and of 2 other rows) | – |" in result.out


def test_what_cannot_be_compared_is_an_error_that_says_why(cembench, tables, runs, tmp_path):
    twice = make(tmp_path / "twice", checkpoint_sha256="other")
    other, nonsense = tables / "mnist-linf-0.3.csv", tables / "digits-linf-0.125.csv"
    other.write_text("run\na\n")
    nonsense.write_text("a,b\n1,2\n")
    fine = tables / "digits-samples-noise.csv"
    for args, message in (
        ((other, runs), "digits-samples-gaussian"),
        ((nonsense, runs), "no column of runs"),
        ((tables / "none.csv", runs), "cannot read"),
        ((fine, tables), "no records below"),
        ((fine, runs, twice), "two rows are 'at.s0 rcs noise 0'"),
    ):
        result = cembench("verify", *args)
        assert result.code == 2 and message in result.err, args
        assert len(result.err.splitlines()) == 1
