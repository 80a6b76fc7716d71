"""Records as one table: what it holds, which rows a condition chooses, and that it is read back."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cembench.cli import main
from cembench.evaluation.compare import compare_records
from cembench.evaluation.record.acceptance import ACCEPTED, Acceptance
from cembench.evaluation.record.collection import read_collection
from cembench.evaluation.record.files import load_record, parse_collected, save_record
from cembench.reporting.leaderboard import build_boards, find_records
from cembench.reporting.page import write_plots, write_report
from cembench.reporting.records import collect
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.files.layout import RunLayout
from tests.support.records import both, record

FIXTURES = Path(__file__).parents[1] / "fixtures"


def save(folder, one):
    path = RunLayout(folder / one.run).record(one.protocol["name"])
    save_record(path, one, pd.DataFrame({"index": [0]}))
    return path


@pytest.fixture
def runs(tmp_path):
    """Three seeds of two experiments, one of them with samples, and one that failed."""
    folder = tmp_path / "runs"
    for seed in range(3):
        more = {"seed": seed, "created": f"2026-01-0{seed + 1}"}
        save(folder, both(f"at.s{seed}", 50 + seed, 1.0 + seed, recipe="r", **more))
        save(folder, record(f"pgd.s{seed}", 20 + seed, method="jem", recipe="j", **more))
    save(folder, record("nan", figures={}, error="logits | not finite"))
    return folder


def run(*args):
    done = CliRunner().invoke(main, ["records", *map(str, args)])
    assert done.exit_code in (0, 2) and done.exception in (None, done.exception)
    return done


def written(path, *args):
    assert run(*args, "--to", path).exit_code == 0
    return pq.read_table(path)


def tables(*paths):
    return {one.stem: one.csv() for one in build_boards(find_records(paths).values())}


def test_a_collection_gives_the_tables_of_its_folders_byte_by_byte(tmp_path, runs):
    table = written(tmp_path / "all.parquet", runs)
    assert table.num_rows == 7 and tables(tmp_path / "all.parquet") == tables(runs)
    assert "digits-linf-0.125-seeds" in tables(runs)
    assert table["path"][0].as_py() == "runs/at.s0/eval/standard.json"
    assert [json.loads(one)["run"] for one in table["record"].to_pylist()] == [
        *("at.s0", "at.s1", "at.s2", "nan", "pgd.s0", "pgd.s1", "pgd.s2"),
    ]


def test_numbers_are_numbers_and_types_do_not_depend_on_the_rows(tmp_path, runs):
    first = written(tmp_path / "a.parquet", runs / "nan")
    second = written(tmp_path / "b.parquet", runs / "at.s0", runs / "at.s1")
    types = {field.name: field.type for field in second.schema}
    assert all(types[field.name] == field.type for field in first.schema)
    both_files = pa.concat_tables([first, second], promote_options="default").to_pylist()
    assert [row["autoattack_acc"] for row in both_files] == [None, 0.5, 0.51]
    assert [row["seed"] for row in both_files] == [0, 0, 1]
    assert both_files[0]["error"] == "logits | not finite" and both_files[1]["error"] is None


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("method == 'at' and autoattack > 0.5", "at.s1 at.s2"),
        ("autoattack_acc * 100 - 20 <= 1", "pgd.s0 pgd.s1"),
        ("autoattack is None", "nan"),
        ("not autoattack > 0.3", "pgd.s0 pgd.s1 pgd.s2"),  # that of `nan` is unknown
        ("run in ('at.s0', 'nan') or 'pgd' in run and seed == 2", "at.s0 nan pgd.s2"),
        ("run not in ['nan'] and 0 < seed < 2", "at.s1 pgd.s1"),
        ("`rcs-gaussian_lite0@64_n100_kid` < 2", "at.s0"),
        ('rcs_gaussian_lite0_64_n100_kid < 2 and eps == 1/8 and norm != "l2"', "at.s0"),
        ("'|' in error and not unchecked", "nan"),
        ("finished", "at.s0 at.s1 at.s2 nan pgd.s0 pgd.s1 pgd.s2"),
        ("run in ()", ""),
    ],
)
def test_a_condition_chooses_rows(runs, condition, expected):
    assert collect([runs], condition)["run"].to_pylist() == expected.split()


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("autoatack > 0.5", "no record has the column 'autoatack'; did you mean 'autoattack_acc'?"),
        ("method > 1", "1 is a number where a text is needed"),
        ("autoattack", "no condition"),
        ("method = 'at'", "invalid syntax"),
        ("__import__('os').system('touch pwned')", "has no place in a condition"),
        ("method.__class__ == 'at'", "has no place"),
        ("@pd", "invalid syntax"),
        ("[x for x in run]", "has no place"),
        ("(lambda: 1)() == 1", "has no place"),
        ("seed ** 9 ** 9 > 1", "has no place"),
        ("'a' * 9999999999 == run", "is a text where a number is needed"),
        (f"seed == {'9' * 1500}", "too large"),
        ("(" * 900 + "1" + ")" * 900, "where: "),
        ("not " * 480 + "finished", "where: "),
        ("finished and 1", "is a number where a condition is needed"),
        ("x" * 3000, "longer than"),
        ("run == '\x00'", "where: "),
    ],
)
def test_anything_else_is_refused_in_one_line(runs, condition, complaint):
    done = run(runs, "--where", condition)
    assert done.exit_code == 2 and complaint in done.stderr
    assert done.stderr.count("\n") == 1 and len(done.stderr) < 1100 and not Path("pwned").exists()


def test_columns_are_printed_for_people_and_for_programs(runs):
    lines = run(runs, "--where", "method == 'at'").stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "method", "dataset"] and lines[-1] == "4 records"
    assert "50.0%" in lines[1]
    rows = json.loads(
        run(runs, "--json", "--columns", "run,autoattack", "--columns", "seed").stdout
    )
    assert rows[0] == {"run": "at.s0", "autoattack_acc": 0.5, "seed": 0}
    csv = run(runs, "--csv").stdout.splitlines()
    assert csv[0].startswith("path,run,method") and "record" not in csv[0].split(",")
    assert run(runs, "--columns", "runn").exit_code == 2


def test_a_record_counts_once_and_files_come_before_collections(tmp_path, runs):
    inside = runs / "records.parquet"
    assert written(inside, runs).num_rows == 7
    assert len(find_records([runs])) == len(find_records([inside, runs, inside])) == 7
    save(runs, record("at.s0", 77, created="2026-02-01", checkpoint_sha256="again"))
    found = {one.run: one for one in find_records([runs]).values()}
    assert len(found) == 7 and found["at.s0"].checkpoint_sha256 == "again"
    shutil.rmtree(runs / "nan")
    assert written(inside, runs).num_rows == 7  # what was there is kept
    assert len(find_records([inside])) == 7


def test_runs_of_one_name_from_two_folders_keep_apart(tmp_path, runs):
    other = tmp_path / "more" / "runs"
    save(other, record("at.s0", 99))
    table = written(tmp_path / "all.parquet", runs, other)
    assert table["path"].to_pylist()[-1] == "runs-2/at.s0/eval/standard.json"
    joined = written(tmp_path / "joined.parquet", tmp_path / "all.parquet", other, runs)
    assert joined.num_rows == 8 and len(set(joined["path"].to_pylist())) == 8


def test_a_record_in_a_collection_has_a_path_and_nothing_beside_it(tmp_path, runs):
    written(tmp_path / "all.parquet", runs)
    path = tmp_path / "all.parquet/runs/at.s1/eval/standard.json"
    assert load_record(path) == load_record(runs / "at.s1/eval/standard.json")
    with pytest.raises(CembenchError, match="keeps records alone; give the run folder"):
        compare_records(load_record(path), load_record(path))
    with pytest.raises(CembenchError, match=r"all\.parquet: it holds no record runs/none"):
        load_record(tmp_path / "all.parquet/runs/none/eval/standard.json")


def test_a_report_says_what_a_collection_lacks(tmp_path, runs):
    written(tmp_path / "all.parquet", runs / "at.s0")
    page = write_report([tmp_path / "all.parquet"], tmp_path / "page").read_text()
    folders = write_report([runs / "at.s0"], tmp_path / "folders").read_text()
    assert page.count("which keeps records alone") == 1 and "which keeps" not in folders
    assert "Missing pictures" in folders and "No adversarial images were kept" in folders
    assert "Missing pictures" not in page and "No adversarial images were kept" not in page
    assert write_plots([tmp_path / "all.parquet"], tmp_path / "plots")


@pytest.mark.parametrize("columns", [(), ("--columns", "run")])
def test_marks_of_replaced_checkpoints_and_of_acceptance_are_kept(tmp_path, columns):
    runs = tmp_path / "runs"
    shutil.copytree(FIXTURES / "format-4/at", runs / "at")
    with (runs / "at/model.safetensors").open("ab") as file:
        file.write(b"x")
    (runs / "at/eval/proto-d5ed3a.json").unlink()
    digest = sha256(runs / "at/eval/baseline-2579b9.json")
    mark = Acceptance(name="a", outcome="not re-run", record_sha256=digest)
    (runs / "at" / ACCEPTED).write_text(json.dumps(mark.dump()))
    written(tmp_path / "all.parquet", runs, "--verify", *columns)
    for found in (find_records([runs], verify=True), find_records([tmp_path / "all.parquet"])):
        assert {(one.replaced, one.accepted) for one in found.values()} == {(True, "not re-run")}


def test_records_of_earlier_formats_are_kept_as_they_are(tmp_path):
    files = sorted(FIXTURES.glob("format-*/*/eval/*.json"))
    table = written(tmp_path / "all.parquet", *files)
    assert table["record"].to_pylist() == [file.read_text() for file in files]
    read = [parse_collected(one) for one in read_collection(tmp_path / "all.parquet")]
    assert read == [load_record(file) for file in files] and len(files) > 3


def damaged(content):
    return content[:100] + bytes([content[100] ^ 255]) + content[101:]


def hostile(**changes):
    values = {"path": ["runs/a/eval/b.json"], "record": ["{}"], **changes}
    return pa.table({key: value for key, value in values.items() if value is not None})


@pytest.mark.parametrize(
    "table",
    [
        hostile(record=None),
        hostile(path=None),
        hostile(path=[1]),
        hostile(record=[{"a": 1}]),
        hostile(path=["../../up.json"]),
        hostile(path=["/etc/passwd"]),
        hostile(path=[None]),
        hostile(record=[None]),
        hostile(record=["[" * 100_000]),
        hostile(record=['{"format": ' + "9" * 10_000 + "}"]),
        hostile(checkpoint=[2.5]),
        pa.table({"path": ["a"] * 1_000_001, "record": ["{}"] * 1_000_001}),
        hostile(record=["x" * (2**23 + 1)]),
    ],
    ids=map(str, range(13)),
)
def test_a_hostile_collection_is_refused_in_one_line(tmp_path, table):
    pq.write_table(table, tmp_path / "all.parquet")
    done = run(tmp_path / "all.parquet")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert "all.parquet" in done.stderr and "unexpected" not in done.stderr


def test_only_parquet_is_written(tmp_path, runs):
    done = run(runs, "--to", tmp_path / "all.csv")
    assert done.exit_code == 2 and "`--csv` prints CSV" in done.stderr


def test_damage_is_told(tmp_path, runs):
    written(tmp_path / "all.parquet", runs)
    content = (tmp_path / "all.parquet").read_bytes()
    for number, text in enumerate((b"", content[:-9], content[: len(content) // 2], b"PAR1" * 9)):
        (tmp_path / f"{number}.parquet").write_bytes(text)
        done = run(tmp_path / f"{number}.parquet")
        assert done.exit_code == 2 and f"{number}.parquet" in done.stderr, text[:20]
    table = pq.read_table(tmp_path / "all.parquet").to_pandas()
    table["record"] = table["record"].str.replace('"correct": 50', '"correct": 99')
    table.to_parquet(tmp_path / "edited.parquet")
    assert "changed since it was written" in run(tmp_path / "edited.parquet").stderr
    table["path"] = [[place] for place in table["path"]]
    table.to_parquet(tmp_path / "lists.parquet")
    assert "no text columns path and record" in run(tmp_path / "lists.parquet").stderr


def test_a_selection_that_another_program_wrote_is_read(tmp_path, runs):
    written(tmp_path / "all.parquet", runs)
    table = pd.read_parquet(tmp_path / "all.parquet")[["record", "path"]]
    table = table.iloc[:2].assign(path="runs/at/eval/standard.json")  # of two unions, say
    table["checkpoint"] = pd.Series([None, None], dtype=object)  # a column without a type
    table.to_parquet(tmp_path / "two.parquet", row_group_size=1)
    found = find_records([tmp_path / "two.parquet"])
    assert [one.run for one in found.values()] == ["at.s0", "at.s1"]
    assert all(load_record(path) == one for path, one in found.items())
