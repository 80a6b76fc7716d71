"""The gate under faults: kills, full disks, careless edits. A baseline and its verdicts agree."""

import errno
import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

import cembench as cb
from cembench.evaluation.gate import conditions
from cembench.evaluation.gate.baseline import load_baseline, save_baseline
from cembench.evaluation.gate.evaluator import Evaluator
from cembench.evaluation.gate.update import update
from cembench.evaluation.gate.verdicts import folder_of, load_verdicts
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.record.files import load_record, load_table
from cembench.models.checkpoint import load_checkpoint, save_checkpoint
from cembench.util.files import locks, sha256
from cembench.util.files.locks import locked
from cembench.util.files.parquet import sealed_table
from cembench.util.files.yaml import read_yaml, to_yaml
from tests.conftest import NOTHING
from tests.support.forks import Blow, Process

pytest_plugins = "pytester"

TODAY = Path(__file__).parents[1] / "fixtures" / "format-4"
PLAN = [*NOTHING, "attacks=[{name: pgd, steps: 5}]"]
CHECKED = [*PLAN, "sanity={images: 24, steps: 2, queries: 5}"]


@pytest.fixture(scope="module")
def made(trained, undefended, tmp_path_factory):
    """A folder with the runs `at` and `standard`, and a baseline of both in `gate`."""
    folder = tmp_path_factory.mktemp("made")
    for name, run in (("at", trained), ("standard", undefended)):
        ignored = shutil.ignore_patterns("eval")  # of other tests
        shutil.copytree(run, folder / "runs" / name, ignore=ignored)
    runs = [str(folder / "runs" / name) for name in ("at", "standard")]
    update(runs, folder / "gate" / "b.yaml", load_protocol("quick", CHECKED, 120), Evaluator())
    return folder


@pytest.fixture
def baseline(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made" / "gate" / "b.yaml"


@pytest.fixture
def found(made, monkeypatch):
    """What the evaluator finds, by row, without evaluating; some more images survive than did."""
    found = {}
    for name in ("at", "standard"):
        (path,) = (made / "runs" / name / "eval").glob("*.json")
        better = load_table(path).assign(pgd_broken=lambda t: t["pgd_broken"] & (t.index > 9))
        found[name] = load_record(path), better

    def measure(self, name, file, protocol, keep=False):
        return found[name]

    monkeypatch.setattr(Evaluator, "measure", measure)
    return found


def edit(path, change):
    values = read_yaml(path)
    change(values)
    path.write_text(to_yaml(values))


def as_format_1(path):
    """Leave out what format 1 did not say."""

    def change(values):
        values["format"] = 1
        for row in values["rows"].values():
            for key in ("protocol_digest", "software", "sanity_passed"):
                del row[key]

    edit(path, change)


def contents(path):
    """Return the baseline and its verdict files, by name."""
    return {p: p.read_bytes() for p in sorted([path, *folder_of(path).iterdir()])}


def require_one_line(result, message):
    assert result.code == 2 and message in result.err, result
    assert len(result.err.strip().splitlines()) == 1


def require_sound(cembench, path):
    today = load_baseline(path)
    for name in today.rows:
        load_verdicts(path, today, name)
    result = cembench("check", "--baseline", path)
    assert result.code == 0, result


WEAKER = {
    "threat.eps: 0.125 → 0.02": lambda v: v["protocol"]["threat"].update(eps=0.02),
    "attacks.0.steps: 5 → 1": lambda v: v["protocol"]["attacks"][0].update(steps=1),
    "limit: 120 → 10": lambda v: v["protocol"].update(limit=10),
}


@pytest.mark.parametrize("change", WEAKER)
def test_an_edited_protocol_is_refused_with_what_changed(cembench, baseline, change):
    edit(baseline, WEAKER[change])
    standard = f"at={baseline.parents[1] / 'runs' / 'standard'}"
    result = cembench("check", standard, "--baseline", baseline)
    require_one_line(result, f"changed since row 'at' was measured ({change})")
    as_format_1(baseline)
    result = cembench("check", standard, "--baseline", baseline)
    require_one_line(result, "the protocol changed since row 'at' was measured")


def test_an_edited_protocol_becomes_that_of_all_rows_or_of_none(cembench, baseline):
    edit(baseline, WEAKER["attacks.0.steps: 5 → 1"])
    before = contents(baseline)
    run = baseline.parents[1] / "runs" / "at"
    result = cembench("check", run, "--baseline", baseline, "--update")
    require_one_line(result, "update all rows at once")
    assert "row 'standard'" in result.err and contents(baseline) == before
    assert cembench("check", "--baseline", baseline, "--update").code == 0
    today = load_baseline(baseline)
    assert today.protocol.name == f"baseline-{today.protocol.digest[:6]}"
    assert {row.protocol_digest for row in today.rows.values()} == {today.protocol.digest}
    assert len(contents(baseline)) == 3
    again = cembench("check", run, "--baseline", baseline, "--json")
    assert {row["verdict"] for row in json.loads(again.out)} <= {"pass", "inconclusive"}


def test_other_software_is_refused_unless_allowed(cembench, baseline, found, monkeypatch):
    versions = load_baseline(baseline).rows["at"].software
    assert {"cembench", "torch", "pyautoattack"} <= {*versions}
    monkeypatch.setattr(conditions, "versions", lambda libraries: versions | {"torch": "99.0"})
    result = cembench("check", "--baseline", baseline)
    change = f"torch {versions['torch']} → 99.0"
    require_one_line(result, f"measured with other software ({change})")
    allowed = cembench("check", "--baseline", baseline, "--allow-changed-software")
    assert allowed.code == 0 and f"{change}, allowed" in allowed.out
    as_format_1(baseline)
    assert cembench("check", "--baseline", baseline).code == 0


def test_a_network_with_scaled_logits_does_not_pass_where_nothing_checks(
    cembench, baseline, tmp_path
):
    model, metadata = load_checkpoint(baseline.parents[1] / "runs" / "standard")
    weights = model.state_dict()
    for name in list(weights)[-2:]:
        weights[name] = 1e5 * weights[name]
    save_checkpoint(tmp_path / "scaled.safetensors", weights, metadata)
    scaled = f"at={tmp_path / 'scaled.safetensors'}"
    result = cembench("check", scaled, "--baseline", baseline)
    assert result.code == 1 and "zero_gradients" in result.out
    plan = load_protocol("quick", PLAN, 60)
    (tmp_path / "plan.yaml").write_text(to_yaml(plan.dump()))
    run, path = baseline.parents[1] / "runs" / "at", tmp_path / "none.yaml"
    begin = cembench(
        "check", run, "--baseline", path, "--update", "--protocol", tmp_path / "plan.yaml"
    )
    assert begin.code == 0 and "add sanity to the protocol" in begin.err
    result = cembench("check", scaled, "--baseline", path)
    assert result.code == 2 and "1 unchecked" in result.err
    files = ["--junit", tmp_path / "junit.xml", "--allow-unchecked"]
    result = cembench("check", run, "--baseline", path, *files)
    assert "| at | sanity | – | – | nothing looked" in result.out
    assert result.code == 0 or "inconclusive" in result.err
    assert "skipped" in (tmp_path / "junit.xml").read_text()


def test_a_figure_that_the_record_lacks_is_an_error(cembench, baseline, found):
    record, table = found["at"]
    figures = {"clean": record.figures["clean"], "worst_case": record.figures["worst_case"]}
    left = table[[column for column in table if not column.startswith("pgd")]]
    for lacking in (table, left):
        changed = {"figures": figures, "not_applicable": ["pgd"]}
        found["at"] = record.model_copy(update=changed), lacking
        result = cembench("check", "--baseline", baseline)
        assert result.code == 2 and "the record has no such figure | ERROR" in result.out
        assert "not any more: pgd | ERROR" in result.out
    update([], baseline, None, Evaluator())
    assert load_baseline(baseline).rows["at"].not_applicable == ["pgd"]
    require_sound(cembench, baseline)


def test_an_update_killed_at_any_write_leaves_a_baseline_that_works(
    cembench, made, baseline, found, tmp_path
):
    before, folder, at, codes = baseline.read_bytes(), baseline.parent, 0, []
    while not codes or codes[-1] != 0:
        at += 1
        shutil.rmtree(folder)
        shutil.copytree(made / "gate", folder)
        command = ["check", "--baseline", baseline, "--update"]
        blow, errors = Blow(folder, at), tmp_path / "errors.txt"
        codes.append(Process(*command, errors=errors, blow=blow).wait())
        assert codes[-1] in (0, -signal.SIGKILL), errors.read_text()
        require_sound(cembench, baseline)
    assert codes.count(-signal.SIGKILL) > 8 and baseline.read_bytes() != before
    kinds = {path.suffix for path in folder.rglob("*")}
    assert len(contents(baseline)) == 3 and kinds == {".yaml", ".parquet", ""}


def test_what_killed_updates_left_is_cleared_by_the_next_one(cembench, baseline, found, tmp_path):
    names = list(contents(baseline))
    (folder_of(baseline) / "notes.parquet").write_text("mine")
    for at in (12, 14, 16, 18):
        command = ["check", "--baseline", baseline, "--update"]
        blow = Blow(baseline.parent, at)
        Process(*command, errors=tmp_path / "errors.txt", blow=blow).wait()
    assert cembench("check", "--baseline", baseline, "--update").code == 0
    left = {path.name for path in folder_of(baseline).iterdir()}
    named = {Path(row.verdicts).name for row in load_baseline(baseline).rows.values()}
    assert left == named | {"notes.parquet"} and not named & {path.name for path in names}
    assert [path.name for path in sorted(baseline.parent.glob(".*"))] == []


@pytest.mark.parametrize("write", [1, 2, 3])
def test_an_update_that_cannot_write_changes_nothing(cembench, baseline, found, monkeypatch, write):
    before, sync, calls = contents(baseline), os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    result = cembench("check", "--baseline", baseline, "--update")
    require_one_line(result, "No space left on device")
    assert contents(baseline) == before
    require_sound(cembench, baseline)


def test_when_one_row_cannot_be_updated_none_is(cembench, baseline, found):
    before = contents(baseline)
    record, _ = found["standard"]
    found["standard"] = record.model_copy(update={"error": "no"}), pd.DataFrame()
    result = cembench("check", "--baseline", baseline, "--update")
    require_one_line(result, "cannot be a baseline: no")
    assert contents(baseline) == before


def test_of_two_updates_at_once_one_is_refused(cembench, baseline, found, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    runs, errors = baseline.parents[1] / "runs", tmp_path / "errors.txt"
    found["new"], found["newer"] = found["at"], found["standard"]
    first = ["check", f"new={runs / 'at'}", "--baseline", baseline, "--update"]
    second = ["check", f"newer={runs / 'standard'}", "--baseline", baseline, "--update"]
    stopped = Process(*first, errors=errors, blow=Blow(baseline.parent, 10, signal.SIGSTOP))
    assert stopped.wait() == -signal.SIGSTOP
    require_one_line(cembench(*second), f"{baseline}: another process is at it")
    stopped.send(signal.SIGCONT)
    assert stopped.wait() == 0, errors.read_text()
    assert cembench(*second).code == 0
    assert {*load_baseline(baseline).rows} == {"at", "standard", "new", "newer"}
    require_sound(cembench, baseline)
    with locked(baseline.with_name(f".{baseline.name}.lock"), "the other one"):
        require_sound(cembench, baseline)


def test_verdict_files_of_other_baselines_stay(cembench, baseline, found):
    values = baseline.read_text()
    others = [baseline.with_name(name) for name in ("b.yml", "c.yaml")]
    for other in others:
        shutil.copytree(folder_of(baseline), folder_of(other))
        other.write_text(values.replace(folder_of(baseline).name, folder_of(other).name))
    before = [contents(other) for other in others]
    assert cembench("check", "--baseline", baseline, "--update").code == 0
    assert [contents(other) for other in others] == before
    for other in others:
        require_sound(cembench, other)


def rewritten(baseline, change, seal):
    """Change a verdict file and put its checksum into the baseline."""
    today = load_baseline(baseline)
    row = today.rows["at"]
    file = baseline.parent / row.verdicts
    table = change(pd.read_parquet(file))
    seal(table, file)
    row = row.model_copy(update={"verdicts_sha256": sha256(file)})
    save_baseline(baseline, today.model_copy(update={"rows": {**today.rows, "at": row}}))


def sealed(table, file):
    file.write_bytes(sealed_table(table, {"seal": "", "protocol": {}}))


EDITS = {
    "labels of the baseline's verdicts": lambda t: t.assign(label=(t["label"] + 1) % 10),
    "are about other images": lambda t: t.assign(index=t["index"] + 1),
    "'label' holds other values": lambda t: t.assign(label=t["label"] + 0.5),
    "'clean_pred' holds": lambda t: t.assign(clean_pred=t["clean_pred"].astype(str)),
    "'clean_8bit_pred' holds": lambda t: t.assign(clean_8bit_pred=-1),
    "'pgd_broken' holds": lambda t: t.assign(pgd_broken=0),
    "numbers an image twice": lambda t: t.assign(index=0),
    "no column 'pgd_broken'": lambda t: t.drop(columns="pgd_broken", errors="ignore"),
    "no column 'clean_pred'": lambda t: t.drop(columns="clean_pred", errors="ignore"),
    "'square_broken' belongs to nothing": lambda t: t.assign(square_broken=False),
    "'0' belongs to nothing": lambda t: t.assign(**{"0": 0}),
}


@pytest.mark.parametrize("problem", EDITS)
def test_an_edited_verdict_file_is_refused_in_one_line(cembench, baseline, found, problem):
    rewritten(baseline, EDITS[problem], sealed)
    require_one_line(cembench("check", "--baseline", baseline), problem)
    rewritten(baseline, EDITS[problem], lambda table, file: table.to_parquet(file))
    result = cembench("check", "--baseline", baseline)
    require_one_line(result, "damaged, or changed since it was written")
    as_format_1(baseline)
    require_one_line(cembench("check", "--baseline", baseline), problem)


def test_a_verdict_file_that_is_no_table_is_named(cembench, baseline, found):
    rewritten(baseline, lambda table: table, lambda table, file: file.write_bytes(b"PAR1 no"))
    require_one_line(cembench("check", "--baseline", baseline), "at-")


def test_a_baseline_of_format_1_is_checked_and_updated(cembench, tmp_path, monkeypatch):
    path = shutil.copytree(TODAY, tmp_path / "today") / "baseline.yaml"
    assert read_yaml(path)["format"] == 1
    record = path.parent / "at" / "eval" / "baseline-2579b9.json"
    today = load_record(record), load_table(record)
    monkeypatch.setattr(Evaluator, "measure", lambda *args, **options: today)
    edit(
        path,
        lambda v: (v.update(margin=0.5), v["rows"]["at"]["metrics"]["ece"].update(tolerance=0.4)),
    )
    assert cembench("check", "--baseline", path).code == 0
    assert cembench("check", "--baseline", path, "--update").code == 0
    after = load_baseline(path)
    row = after.rows["at"]
    assert after.format == 2 and after.margin == 0.5 and row.metrics["ece"].tolerance == 0.4
    assert [file.name for file in folder_of(path).iterdir()] == [Path(row.verdicts).name]
    assert cembench("check", "--baseline", path).code == 0
    edit(path, lambda v: v["protocol"].update(seed=1))
    require_one_line(cembench("check", "--baseline", path), "(seed: 0 → 1)")


def test_the_function_and_the_plugin_take_the_same_permissions(baseline, found, pytester):
    assert all(outcome.passes for outcome in cb.check(baseline))
    edit(baseline, lambda v: v["rows"]["at"]["software"].update(torch="0.1"))
    with pytest.raises(cb.CembenchError, match=r"torch 0.1 →"):
        cb.check(baseline)
    assert cb.check(baseline, allow_changed_software=True)
    run = partial(pytester.runpytest_inprocess, "--cembench-baseline", baseline)
    run("--cembench-allow-changed-software").assert_outcomes(passed=8)
    edit(baseline, WEAKER["limit: 120 → 10"])
    run().stdout.fnmatch_lines(["*the protocol changed since row 'at' was measured*"])
