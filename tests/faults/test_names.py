"""Names that would be paths, options, formulas or escape sequences: refused before any file."""

import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cembench.evaluation.gate.baseline import load_baseline
from cembench.evaluation.protocol import load_protocol, parse_protocol
from cembench.suites.suite import load_suite
from cembench.util.errors import ConfigError
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import file_name
from cembench.util.files.yaml import to_yaml
from tests.conftest import TINY, experiment

ROOT = Path(__file__).parents[2]
BAD = {
    "nothing": "",
    "this folder": ".",
    "the folder above": "..",
    "a path": "../../../escaped",
    "a path below": "a/b",
    "a path from the root": "/tmp/escaped",
    "a path of Windows": "..\\escaped",
    "a drive": "c:escaped",
    "NUL": "a\0b",
    "a line break": "a\nb",
    "an escape sequence": "a\x1b[2Jb",
    "half a character": "a\ud800",
    "a byte that is no UTF-8": "a\udcff",
    "a mark that turns the direction": "a\u202eb",
    "hidden": ".a",
    "an option": "-rf",
    "a formula": "=cmd|' /C calc'!A0",
    "blanks around": " a",
    "a dot at the end": "a.",
    "a blank at the end": "a ",
    "a device": "nul",
    "a device with an ending": "COM1.txt",
    "too long": "a" * 201,
    "too long in UTF-8": "é" * 101,
    "a pattern": "a*",
}
GOOD = [
    "a",
    "at-0.1.s0",
    "_x",
    "b c",
    "it's 50%",
    "über",
    "ε=8",
    "a🙂",
    "a" * 200,
    "a[1]",
    "7$HOME",
]

bad = pytest.mark.parametrize("name", BAD.values(), ids=BAD)


@bad
def test_a_name_that_is_no_file_on_some_system_is_refused_in_one_line(name):
    with pytest.raises(ConfigError, match=r"cannot be the name of a file: .*; choose another") as e:
        file_name(name)
    assert str(e.value).isprintable() and len(str(e.value)) < 300


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_every_system_takes_is_taken_as_it_is(name, tmp_path):
    assert file_name(name) == name
    (tmp_path / name).touch()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def outside(tmp_path):
    """A folder to work in, with nothing beside it after the test."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    yield folder
    assert [path.name for path in tmp_path.rglob("*") if "escaped" in path.name] == []


@pytest.fixture
def baseline(outside):
    """A copy of the committed baseline."""
    shutil.copytree(ROOT / "leaderboards" / "reference", outside / "reference")
    return outside / "reference" / "baseline.yaml"


def test_a_row_of_a_baseline_is_no_path(baseline, outside, cembench):
    text = baseline.read_text().replace("\n  at:\n", "\n  ../../../escaped:\n")
    assert "escaped" in text
    baseline.write_text(text)
    result = cembench("check", "--baseline", baseline, "--out", outside / "out")
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert "rows: '../../../escaped' cannot be the name of a file: it has '/'" in result.err
    assert not (outside / "out").exists()


@pytest.mark.parametrize("name", ["../../x-escaped", "", "a|b", "-escaped", "AT"])
def test_the_name_before_a_checkpoint_is_no_path(name, baseline, outside, cembench):
    word = f"{name}={outside / 'reference' / 'at'}"
    before = baseline.read_bytes()
    result = cembench("check", "--baseline", baseline, "--update", "--", word)
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert "cannot be the name of a file" in result.err or "'at' and 'AT'" in result.err
    assert baseline.read_bytes() == before


@bad
def test_the_name_of_a_run_is_no_path(name, outside, cembench):
    (outside / "c.yaml").write_text(to_yaml(TINY))
    result = cembench("train", outside / "c.yaml", "--out", outside / "runs", f"--name={name}")
    assert result.code == 2 and len(result.err.splitlines()) == 1
    assert "--name: " in result.err and not (outside / "runs").exists()


@bad
def test_names_in_settings_are_no_paths(name, tmp_path):
    tries = {
        "name": lambda: parse_protocol({"name": name, "attacks": ["pgd"]}),
        "attacks.0.label": lambda: parse_protocol({"attacks": [{"name": "pgd", "label": name}]}),
        "samplers.0.label": lambda: parse_protocol(
            {"samples": {"samplers": [{"name": "rcs", "label": name}]}}
        ),
        "data.alias": lambda: experiment(data={"name": "folder", "root": "x", "alias": name}),
    }
    for place, parse in tries.items():
        with pytest.raises(ConfigError) as error:
            parse()
        assert place in str(error.value)


@pytest.mark.parametrize("name", ["../x", "a/b", ".a", "nul", "a" * 201, "Leaderboards", "A"])
def test_an_experiment_of_a_suite_is_no_path(name, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(to_yaml({"protocol": "quick", "experiments": {"a": TINY, name: TINY}}))
    with pytest.raises(ConfigError, match=r"cannot be the name of a file|on some systems"):
        load_suite(path)


def test_labels_that_differ_in_case_alone_would_share_a_file():
    with pytest.raises(ConfigError, match="attacks: 'a' and 'A' are the same file"):
        parse_protocol({"attacks": [{"name": "pgd", "label": "a"}, {"name": "pgd", "label": "A"}]})
    with pytest.raises(ConfigError, match="'a-gaussian' and 'A-gaussian' are the same file"):
        load_protocol("quick", ["samples.samplers=[{name: rcs, label: a}, {name: cs, label: A}]"])


def test_no_path_of_a_run_leaves_its_folder():
    layout = RunLayout(Path("runs/at"))
    with pytest.raises(ConfigError):
        layout.record("../../x")
    with pytest.raises(ConfigError):
        RunLayout.picture(layout.record("quick"), "../x")


def test_committed_names_stay_legal():
    for folder in (ROOT / "leaderboards", ROOT / "tests" / "fixtures", ROOT / "configs"):
        for path in folder.rglob("*"):
            assert path.name.startswith(".") or file_name(path.name)
    assert {*load_baseline(ROOT / "leaderboards" / "reference" / "baseline.yaml").rows}


def test_a_baseline_without_a_name_takes_that_of_its_file(baseline):
    text = baseline.read_text()
    baseline.write_text(text.replace("  name: baseline-e1e984\n", ""))
    assert load_baseline(baseline).protocol.name == "baseline-baseline"


def test_what_a_terminal_would_obey_is_printed_as_escapes(copy, tmp_path, cembench):
    folder = copy.parent.rename(tmp_path / "a\x1b]0;b\x07|\nc\u202e")
    page = cembench("show", folder)
    assert page.code == 0 and r"a\x1b]0;b\x07|\nc\u202e" in page.out
    wrong = cembench("eval", folder / "none.safetensors", "--protocol", "quick")
    assert wrong.code == 2 and len(wrong.err.splitlines()) == 1
    assert wrong.err.rstrip("\n").isprintable()


BYTES = os.fsdecode(b"caf\xe9")
PLAN = {"attacks": [{"name": "pgd", "steps": 2}], "limit": 8}


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there alone")
@pytest.mark.parametrize("name", [BYTES, "=1+1|a\nb", "z" * 255])
def test_a_folder_with_any_name_is_measured_and_ranked(name, copy, tmp_path, cembench):
    run, plan = tmp_path / "runs" / name, tmp_path / f"{name[:9]}.yaml"
    run.parent.mkdir()
    copy.parent.rename(run)
    plan.write_text(to_yaml({"name": "p", **PLAN}))
    assert cembench("eval", run, "--protocol", plan).code == 0
    assert cembench("show", run).code == 0
    out = tmp_path / f"out-{name[:9]}"
    ranked = cembench("leaderboard", run, "--out", out)
    assert ranked.code == 0 and len(ranked.out.splitlines()) == 6
    (table,) = out.glob("*.csv")
    assert len(pd.read_csv(table)) == 1 and not pd.read_csv(table).run[0].startswith("=")
    for command in ("report", "plot"):
        assert cembench(command, run, "--out", out).code == 0
    row = cembench("check", run, "--baseline", tmp_path / "b.yaml", "--update", "--protocol", plan)
    assert row.code == 2 and "NAME=CHECKPOINT" in row.err


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there alone")
def test_data_with_names_that_are_not_utf8_is_trained_on_and_measured(tmp_path, cembench):
    root = tmp_path / BYTES
    for split in ("train", "test"):
        for label, kind in enumerate((BYTES, "b\nc")):
            (root / split / kind).mkdir(parents=True)
            for number in range(4):
                image = Image.new("L", (8, 8), 100 * label + 9 * number)
                image.save(root / split / kind / f"{BYTES}{number}.png")
    (tmp_path / BYTES / "c.yaml").write_text(
        to_yaml({**TINY, "data": {"name": "folder", "root": str(root)}, "batch_size": 2})
    )
    runs = tmp_path / f"runs-{BYTES}"
    trained = cembench("train", root / "c.yaml", "--out", runs, "validation.fraction=0.25")
    assert trained.code == 0, trained.err
    (tmp_path / "p.yaml").write_text(to_yaml(PLAN))
    measured = cembench("eval", runs / "c", "--protocol", tmp_path / "p.yaml")
    assert measured.code == 0, measured.err
