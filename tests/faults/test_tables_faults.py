"""Tables and pages of folders in any state: a bad file or a missing part costs no other."""

import hashlib
import io
import random
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cembench.evaluation.sections.samples import SamplerFigures
from cembench.evaluation.sections.sanity import SanityCheck
from cembench.reporting import details
from cembench.reporting.leaderboard import build_boards, find_records
from cembench.reporting.page import write_report
from cembench.reporting.page.charts import charts
from cembench.reporting.page.page import Page
from cembench.reporting.page.runs import Run, gather
from cembench.reporting.page.tables import of_board
from cembench.util.files.layout import RunLayout
from tests.support.pages import density, leave, png, point
from tests.support.records import PLAN, both, corrupted, drawn, figure, record, sampled

BARE = {"curve": [], "density": None}


@pytest.fixture
def runs(tmp_path):
    """Two runs with every file that a run can have."""
    for name, robust in (("a", 60), ("b", 50)):
        path = leave(tmp_path / "runs" / name, robust, checkpoint_sha256=name, **BARE)
        for file in (path.with_suffix(".parquet"), path.with_suffix(".curve.png")):
            file.write_bytes(png())
        for name in ("config.yaml", "last.ckpt", "buffer.safetensors"):
            (path.parents[1] / name).write_text("seed: 0\n")
    return tmp_path / "runs"


def files_of(run):
    """All files of a run but its record, which is what a row of a table is."""
    return [file for file in sorted(run.rglob("*")) if file.is_file() and file.suffix != ".json"]


SPOILED = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: -len(file.read_bytes()) // 3]),
    "garbage": lambda file: file.write_bytes(bytes(range(256)) * 9),
    "folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_bad_files_cost_their_own_panels_which_are_named(cembench, runs, tmp_path, caplog, spoil):
    spoiled = files_of(runs / "a")
    assert len(spoiled) == 10
    for file in spoiled:
        SPOILED[spoil](file)
    page, plots = (cembench(name, runs, "--out", tmp_path / name) for name in ("report", "plot"))
    assert page.code == plots.code == 0, page.err + plots.err
    text = (tmp_path / "report/index.html").read_text()
    bad = [f for f in spoiled if f.name == "history.csv" or f.parent.name == "samples"]
    for file in bad if spoil != "missing" else []:
        told = [line for line in caplog.text.splitlines() if f"{file}: " in line]
        assert len(told) == 2 and told[0].partition("cembench: ")[2] in text
    assert text.count("<dialog") == 2 and text.count("<img") == 4
    assert text.count('class="chart"') == 3  # the plane, all histories, the one of b
    drawn = [line.rsplit("/", 1)[1] for line in plots.out.splitlines()]
    assert len(drawn) == 6 and {name[:2] for name in drawn if "standard" in name} == {"b-"}
    ranked = cembench("leaderboard", runs, "--out", tmp_path / "tables")
    assert ranked.code == 0 and "| a | at |" in ranked.out
    assert cembench("show", runs / "a/eval/standard.json").code == 0


EPOCHS = "epoch,loss,val_clean_acc,divergences,gradients\n"
BAD = {
    "": "no column epoch and no column loss",
    "a,b\n1,2\n": "no column epoch",
    EPOCHS: "cut off",
    f"{EPOCHS}1,2.0,0.5,0,10\n2,1.0,0.6,": "cut off",
    f"{EPOCHS}1,2.0,0.5,0,10\n2,1.0,0.6,0,2": "cut off",
    f"{EPOCHS}1,x,0.5,0,10\n": "'x' is no number",
    f"{EPOCHS}1,1e300,0.5,0,10\n": "'1e300' is no number",
    f"{EPOCHS}2,1.0,0.5,0,10\n1,1.0,0.5,0,20\n": "epochs do not rise",
    f"{EPOCHS}1,2.0,0.5,0,10\n": "of another run",
    f"{EPOCHS}1,2.0,0.5,0,11\n2,2.0,0.5,0,22\n": "of another run",
}


def test_a_history_is_shown_only_if_it_is_whole_and_of_the_run(runs, tmp_path):
    trained = {"epoch": 2, "gradients": 20}
    leave(runs / "a", pictures=False, history=False, generation=None, **trained, **BARE)
    for text, reason in BAD.items():
        (runs / "a/history.csv").write_text(text)
        (run, _) = gather([runs])
        (problem,) = run.problems
        assert run.history is None and reason in problem
        assert f"training history: {runs}/a/history.csv: not readable: " in problem
    assert "history.csv: not readable: of another run" in write_report([runs], tmp_path).read_text()
    (runs / "a/history.csv").write_text(f"{EPOCHS}1,2.0,,0,10\n2,inf,0.6,0,20\n3,1.0,nan,0,30\n")
    assert "not readable" not in write_report([runs], tmp_path).read_text()


def test_show_tells_that_a_history_cannot_be_read(cembench, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    rows = (run / "history.csv").read_text().splitlines()
    for text in ("\n".join(rows[:-1]) + "\n", "a,b\n1,2\n", "\0"):
        (run / "history.csv").write_text(text)
        result = cembench("show", run)
        assert result.code == 0 and f"validation    {run}/history.csv: not readable" in result.out


FORMATS = sorted((Path(__file__).parents[1] / "fixtures").glob("format-[124]"))


@pytest.mark.parametrize("spoil", SPOILED)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_table_of_verdicts_that_is_none_is_named_whatever_the_format(
    cembench, tmp_path, form, spoil
):
    shutil.copytree(form / "at/eval", tmp_path / "at/eval")
    (record, *_) = (tmp_path / "at/eval").glob("*.json")
    assert cembench("compare", record, record).code == 0
    SPOILED[spoil](record.with_suffix(".parquet"))
    result = cembench("compare", record, record)
    assert result.code == 2 and f"{record.with_suffix('.parquet')}: " in result.err
    assert "unexpected" not in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize("name", ["mine.yaml", "table.csv", "quick.parquet"])
def test_show_tells_that_a_file_is_of_another_kind(cembench, tmp_path, name):
    (tmp_path / name).write_text("data: digits\n")
    result = cembench("show", tmp_path / name)
    assert result.code == 2 and f"{name}: " in result.err and "no record (.json)" in result.err


def test_pictures_larger_than_a_page_can_hold_are_scaled_down(runs, tmp_path):
    place = RunLayout.picture(runs / "a/eval/standard.json", "rcs-noise")
    Image.new("L", (200, 20_000)).save(place)
    text = write_report([runs], tmp_path).read_text()
    assert 'width="164" height="16383"' in text and text.count("<img") == 8


def test_a_chart_that_cannot_be_drawn_costs_no_other(cembench, runs, tmp_path, monkeypatch, caplog):
    def draw(chart):
        raise UnboundLocalError("ticks")

    monkeypatch.setattr("cembench.reporting.page.svg.draw", draw)
    monkeypatch.setattr("cembench.reporting.page.files.draw", draw)
    text = write_report([runs], tmp_path).read_text()
    assert "cannot be shown, UnboundLocalError" in text and text.count("<img") == 8
    plots = cembench("plot", runs, "--out", tmp_path / "plots")
    assert plots.code == 0 and len(plots.out.splitlines()) == 8
    assert "digits-linf-0.125-plane: cannot be shown" in caplog.text


@pytest.mark.parametrize("own", ["", "net."])
def test_a_row_whose_checkpoint_was_replaced_says_so(cembench, runs, tmp_path, own):
    checkpoint = runs / f"a/{own}model.safetensors".replace("net.model", "net")
    checkpoint.write_bytes(b"ours")
    sha = hashlib.sha256(b"ours").hexdigest()
    for history in runs.glob("*/history.csv"):  # charts of it say nothing of checkpoints
        history.unlink()
    bare = {**BARE, "history": False}
    path = leave(runs / "a", 60, checkpoint_sha256=sha, recipe="r", **bare)
    leave(runs / "b", 50, checkpoint_sha256="b", recipe="r", seed=1, **bare)
    path.rename(path.with_name(f"{own}standard.json"))

    def tables(folder):
        result = cembench("leaderboard", runs, "--out", tmp_path / folder)
        report = cembench("report", runs, "--out", tmp_path / folder)
        assert result.code == report.code == 0
        assert "evaluated" in cembench("show", runs / f"a/eval/{own}standard.json").out
        files = {file.name: file.read_text() for file in (tmp_path / folder).glob("digits-*")}
        return files, (tmp_path / folder / "index.html").read_text()

    before, page = tables("before")
    assert len(before) == 8 and "replaced" not in page + "".join(before.values())
    checkpoint.unlink()
    assert tables("alone") == (before, page)  # records can be shipped without weights
    checkpoint.write_bytes(b"theirs")
    after, page = tables("after")
    for name, text in after.items():
        mark = "1 of 2" if "seeds" in name else "replaced"
        if name.endswith("csv"):
            table = pd.read_csv(io.StringIO(text), keep_default_na=False)
            assert mark.startswith(max(map(str, table["checkpoint"])))
        else:
            (row,) = [line for line in text.splitlines() if line.startswith("| a |")]
            assert f"⚠ {mark} |" in row and "not the one that was measured.\n" in text
    assert "checkpoint replaced" in page and "not the one that was measured" in page
    for name in before:
        if name.endswith("csv"):
            table = tmp_path / "before" / name
            checkpoint.write_bytes(b"ours")
            assert cembench("verify", table, runs).code == 0


def test_a_run_evaluated_again_is_one_row(runs):
    (runs / "a/model.safetensors").write_bytes(b"later")
    sha = hashlib.sha256(b"later").hexdigest()
    leave(runs / "a", 60, checkpoint_sha256=sha, **BARE)
    gate = {**PLAN, "name": "baseline-1"}  # `check` keeps such a record, of the same digest
    earlier = leave(runs / "c", 10, run="a", checkpoint_sha256="x", protocol=gate, **BARE)
    shutil.move(earlier, runs / "a/eval/baseline-1.json")

    def marks():
        (board, *_) = build_boards(find_records([runs]).values())
        return dict(zip(board.table["run"], board.table.get("checkpoint", ["", ""]), strict=False))

    assert marks() == {"a": "", "b": ""}
    (runs / "a/model.safetensors").write_bytes(b"latest")
    assert marks() == {"a": "replaced", "b": ""}


def no_samples():
    failed = SamplerFigures(sampler={"name": "rcs", "steps": 1}, start="noise", error="it left")
    return drawn(1.0, samplers={"rcs-noise": failed}, floor=None, nearest_real=None)


FIGURES = [
    {},
    {"clean": figure(90)},
    {"clean": figure(90), "pgd": figure(0), "worst_case": figure(0)},
    {"clean": figure(90), "autoattack-sampled": figure(5).model_copy(update={"untried": 3})},
    {name: figure(40) for name in ("clean", "autoattack", "autoattack-fast", "worst_case")},
]
DRAWN = [None, drawn(1.0), drawn(2.0, floor=None), drawn(1.0, samplers={}), no_samples()]
DRAWN += [
    drawn(1.0, samplers={"ta-noise": sampled("noise", 1.0).model_copy(update={"gain": None})})
]
FAILED = SanityCheck(name="one_step_wins", verdict="fail", figure=None, meaning="why")
SECTIONS = {
    "figures": FIGURES,
    "generation": DRAWN,
    "density": [None, density()],
    "curve": [[], [point(0.0, 9), point(0.1, 5)]],
    "sanity": [[], [FAILED]],
    "corruptions": [None, corrupted(60), corrupted(50, "cifar10-c", left_out=["frost"], mce=0.4)],
    "error": [None, "diverged"],
    "kind": ["classifier", "encoder"],
    "labels": ["all", "none"],
    "finished": [True, False],
    "recipe": ["", "r", "s"],
    "seed": [0, 1],
    "environment": [{}, {"cembench": "0.1"}],
    "train_seconds": [None, 1.0],
    "weights_sha256": ["", "w"],
    "checkpoint_sha256": ["", "c"],
    "fingerprint": ["f", "g"],
    "protocol": [PLAN, {**PLAN, "sanity": None}, {"name": "quick", "samples": {}, "seed": 1}],
    "warnings": [[], ["careful"]],
    "no_gradient": ["", "no grad_fn"],
    "not_applicable": [[], ["pgd"]],
}
RECORD = st.fixed_dictionaries({key: st.sampled_from(some) for key, some in SECTIONS.items()})


def made(parts):
    """Return a record of each of some parts, every other one with another checkpoint beside it."""
    records = [record(f"run{number}", **part) for number, part in enumerate(parts)]
    for one in records[::2]:
        one._replaced = True
    return records


def pages_of(records):
    return [
        Run(Path(f"{number}/eval/x.json"), one, f"run-{number}", None, [], [], [])
        for number, one in enumerate(records)
    ]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(RECORD, min_size=1, max_size=5))
def test_records_with_any_sections_can_be_ranked_together(parts):
    records = made(parts)
    runs = pages_of(records)
    known = {id(run.record): run for run in runs}
    for board in build_boards(records):
        shown = board.markdown()
        assert "nan" not in shown and "None" not in shown and "NaN" not in shown
        again = pd.read_csv(io.StringIO(board.csv()))
        assert list(again.columns) == list(board.table.columns) and len(again) == len(board.shown)
        assert len(of_board(board, known).table.rows) == len(board.sources) == len(board.table)
        for column in board.table:
            cells = board.table[column]
            assert column == "pareto" or not any(cell is None for cell in cells), column
            assert len({isinstance(cell, str) for cell in cells}) == 1, column
    assert all(placed.chart.kind for placed in charts(runs))
    assert all(run.marks is not None and details.facts(run.record) for run in runs)


@pytest.mark.parametrize("seed", range(2))
def test_records_with_any_sections_share_a_page(seed):
    pick = random.Random(seed).choice
    parts = [{key: pick(some) for key, some in SECTIONS.items()} for _ in range(4)]
    text = Page(pages_of(made(parts))).render()
    assert text.count("<dialog") == 4 and ">nan<" not in text and "None" not in text
    assert "cannot be shown" not in text


def test_means_of_which_one_seed_was_measured_have_no_deviation():
    with_samples = both("at.s0", 40, 1.0, recipe="r")
    runs = [with_samples, record("at.s1", 50, recipe="r", seed=1)]
    (board,) = [board for board in build_boards(runs) if board.stem.endswith("seeds")]
    (row,) = board.shown.to_dict("records")
    assert row["KID-lite0@64 rcs-gaussian, n100 ↓"] == "1 (1 of 2)"
    alone = {"clean": figure(90)}
    known = record("at.s0", figures=alone, recipe="r")
    runs = [known, record("at.s1", figures={}, recipe="r", seed=1)]
    (board,) = [board for board in build_boards(runs) if board.stem.endswith("seeds")]
    assert board.shown["clean ↑"].tolist() == ["90.0% (1 of 2)"]
