"""Two experiments over paired seeds."""

import json

import pytest
from click.testing import CliRunner
from scipy.stats import ttest_rel

from cembench.cli import main
from cembench.evaluation.compare.seeds import compare_seeds, seeds_of
from cembench.evaluation.record.files import save_record
from cembench.util.errors import CembenchError
from tests.support.records import both


def save(run, record):
    (run / "eval").mkdir(parents=True, exist_ok=True)
    save_record(run / "eval" / "standard.json", record, None)


def call(*args):
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result.output


ROBUST = {"at": (50, 60, 58), "dat": (56, 61, 66)}
KIDS = {"at": (1.0, 1.2, 1.1), "dat": (0.6, 0.9, 0.5)}


@pytest.fixture
def runs(tmp_path):
    for name in ROBUST:
        for seed, pair in enumerate(zip(ROBUST[name], KIDS[name], strict=True)):
            save(tmp_path / f"{name}.s{seed}", both(f"{name}.s{seed}", *pair, seed=seed))
    save(tmp_path / "dat.s7", both("dat.s7", 10, 9.0, seed=7))
    return tmp_path


def test_differences_are_those_of_a_paired_t_test(runs):
    found = {row.figure: row for row in compare_seeds(runs / "at", runs / "dat")}
    for figure, values, scale in (
        ("autoattack_acc", ROBUST, 100),
        ("rcs-gaussian_lite0@64_n100_kid", KIDS, 1),
    ):
        row = found[figure]
        expected = ttest_rel(values["dat"], values["at"]).confidence_interval(0.95)
        assert (row.low, row.high) == pytest.approx([end / scale for end in expected])
        assert row.seeds == 3
        assert row.second - row.first == pytest.approx(row.difference)
    assert not [name for name in found if name.endswith(("_low", "_high", "_error"))]


def test_the_command_tells_experiments_from_runs(runs):
    assert sorted(seeds_of(runs / "dat")) == [0, 1, 2, 7] and not seeds_of(runs / "da")
    rows = json.loads(call("compare", runs / "at", runs / "dat", "--json"))
    rows = {row["figure"]: row for row in rows}
    assert rows["autoattack_acc"]["difference"] == pytest.approx(0.05)
    table = call("compare", runs / "at", runs / "dat")
    assert "+0.05" in table and "| seeds |" in table


def test_experiments_in_a_collection_are_compared_as_their_folders_are(runs, tmp_path):
    call("records", runs, "--to", tmp_path / "all.parquet")
    inside = tmp_path / "all.parquet" / tmp_path.name
    expected = compare_seeds(runs / "at", runs / "dat")
    assert compare_seeds(inside / "at", inside / "dat") == expected
    assert json.loads(call("compare", inside / "at", inside / "dat", "--json"))
    with pytest.raises(CembenchError, match="0 seeds in common"):
        compare_seeds(inside / "at", inside / "none")


def test_what_cannot_be_paired_is_one_line(runs):
    with pytest.raises(CembenchError, match="0 seeds in common"):
        compare_seeds(runs / "at", runs / "none")
    save(runs / "at.s1", both("at.s1", 60, 1.0, seed=1, fingerprint="other"))
    with pytest.raises(CembenchError, match="differ in fingerprint"):
        compare_seeds(runs / "at", runs / "dat")
    failed = both("at.s1", 60, 1.0, seed=1).model_copy(update={"error": "no memory"})
    save(runs / "at.s1", failed)
    with pytest.raises(CembenchError, match=r"at\.s1: its evaluation failed: no memory"):
        compare_seeds(runs / "at", runs / "dat")


def test_records_of_the_command_check_do_not_count(runs):
    before = compare_seeds(runs / "at", runs / "dat")
    save_record(runs / "at.s0" / "eval" / "baseline-1.json", both("at.s0", 1, 9.0), None)
    assert compare_seeds(runs / "at", runs / "dat") == before
