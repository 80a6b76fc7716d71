"""Forms of the command line that make it quick to use: KEY=VALUE, folders of runs, pages."""

import json
import shutil
from pathlib import Path

import pytest

from cembench.evaluation.record.files import load_record
from cembench.util.files.yaml import to_yaml
from cembench.util.shipped import shipped
from tests.conftest import NOTHING, experiment

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "leaderboards" / "reference"
PGD = "attacks=[{name: pgd, steps: 1}]"
ATTACK = (PGD, *NOTHING[1:], "--limit", 10)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "c.yaml").write_text(to_yaml(experiment().dump()))
    return tmp_path / "c.yaml"


@pytest.fixture
def runs(trained, tmp_path):
    """A folder of two runs; the weights of a third one are damaged."""
    for name in ("one", "deep/two", "damaged"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        shutil.copy(trained / "model.safetensors", tmp_path / "runs" / name)
    (tmp_path / "runs/damaged/model.safetensors").write_bytes(b"other")
    return tmp_path / "runs"


def test_settings_are_changed_without_an_option(cembench, config, tmp_path):
    done = cembench(
        "train", config, "epochs=1", "threat.eps=0.1", "--set", "seed=3", "--out", tmp_path
    )
    assert done.code == 0
    shown = json.loads(cembench("show", tmp_path / "c", "--json").out)
    assert shown["config"]["epochs"] == 1 and shown["seed"] == 3 and shown["threat"]["eps"] == 0.1
    table = cembench("eval", tmp_path / "c", *ATTACK, "threat.eps=0.05")
    assert table.code == 0 and "linf-0.05" in table.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", 2], "no such option --epochs; settings are changed as epochs=2"),
        (["--batch-size=2"], "settings are changed as batch_size=2"),
        (["--threat.eps", "0.1"], "settings are changed as threat.eps=0.1"),
        (["--epochs"], "settings are changed as epochs=…"),
        (["other"], "other: one argument too many; settings are KEY=VALUE"),
        (["method=pgd"], "unknown method 'pgd'; did you mean method.negatives=pgd?"),
        (["method=digits"], "unknown method 'digits'; it names a data set"),
        (["method=trads"], "unknown method 'trads'; did you mean 'trades'?"),
    ],
)
def test_other_ways_to_change_a_setting_are_explained(cembench, config, options, message):
    refused = cembench("train", config, *options)
    assert refused.code == 2 and message in refused.err and len(refused.err.splitlines()) == 1


def test_an_option_that_is_no_setting_is_just_unknown(cembench, config, trained):
    assert "No such option '--banana'" in cembench("train", config, "--banana", 1).err
    assert "as noise=0.1" in cembench("sample", trained, "--noise", "0.1").err
    assert "as batch_size=8" in cembench("eval", trained, "--batch-size", "8").err


def test_a_folder_of_runs_is_evaluated_run_by_run(cembench, runs):
    result = cembench("eval", runs, *ATTACK)
    assert result.code == 2 and "| one |" in result.out and "| two |" in result.out
    lines = [line for line in result.err.splitlines() if ": clean " in line]
    assert [line.partition(":")[0] for line in lines] == [f"{runs}/deep/two", f"{runs}/one"]
    assert result.err.splitlines()[-1].startswith("cembench: error: ")
    assert f"{runs}/damaged/model.safetensors: truncated" in result.err
    shutil.rmtree(runs / "damaged")
    assert cembench("eval", runs, *ATTACK).code == 0


def test_the_same_failure_is_told_once(cembench, trained, runs):
    changes = (PGD, *NOTHING[1:], "--save-samples")
    refused = cembench("eval", runs / "one", runs / "deep/two", *changes)
    assert refused.code == 2 and refused.err.splitlines()[-1].count("--save-samples") == 1


def test_compare_takes_the_record_beside_those_of_a_baseline(cembench, runs):
    for run in (runs / "one", runs / "deep/two"):
        assert cembench("eval", run, *ATTACK).code == 0
        (record,) = run.glob("eval/*.json")
        for suffix in (".json", ".parquet"):
            shutil.copy(record.with_suffix(suffix), record.with_name(f"baseline-1{suffix}"))
    done = cembench("compare", runs / "one", runs / "deep/two")
    assert done.code == 0 and "| clean |" in done.out
    missing = cembench("compare", runs / "one", runs / "nosuch")
    assert missing.code == 2 and f"{runs}/nosuch: no such record or run" in missing.err
    same = cembench("compare", runs / "one", runs / "one").out
    assert f"| {runs}/one | {runs}/one, again |" in same


def test_list_tells_the_keys_of_a_name(cembench):
    told = cembench("list", "trades").out
    assert "trades (methods): Minimise CE(x, y)" in told and "trades (samplers): " in told
    (beta,) = [line for line in told.splitlines() if line.startswith("beta ")]
    assert beta.split(maxsplit=1)[1].split("  ") and "number or fraction ≥ 0" in beta
    assert "6.0" in beta and beta.endswith("β, the weight of the divergence.")
    assert "negatives        Sampler" in told and "linf, l2" in cembench("list", "rcs").out
    assert "required" in cembench("list", "torchattacks").out
    assert "attacks:" in cembench("list", "quick").out and "quick" in shipped("protocol")
    attacks = cembench("list", "attacks").out
    assert "MIFGSM" in attacks and "AutoAttack" not in attacks.replace("autoattack", "")
    refused = cembench("list", "tradez")
    assert refused.code == 2 and "did you mean 'trades'?" in refused.err


def test_show_prints_a_page_of_a_record(cembench):
    (path,) = REFERENCE.glob("at/eval/baseline-*.json")
    page, record = cembench("show", path).out, load_record(path)
    for name, figure in record.figures.items():
        told = f"{figure.accuracy:.1%} ({figure.low:.1%}–{figure.high:.1%})"
        assert any(line.split()[:3] == [name, *told.split()] for line in page.splitlines())
    for part in ("Sanity checks", "black_box_wins", "rcs-gaussian", "Warnings", "Protocol\nsplit"):
        assert part in page
    assert page.count("⚠") == len(record.sanity_failed)
    assert max(map(len, page.splitlines())) < 160


def test_show_marks_a_failed_check_and_tells_an_error(tmp_path):
    from cembench.reporting.describe import record_page

    (path,) = REFERENCE.glob("at/eval/baseline-*.json")
    record = load_record(path)
    failed = record.sanity[0].model_copy(update={"verdict": "fail"})
    page = record_page(record.model_copy(update={"sanity": [failed], "error": "it is broken"}))
    assert f"⚠  {failed.name}" in page and f"- {failed.name}: " in page and "it is broken" in page


def test_show_prints_a_page_of_a_run(cembench, trained):
    page = cembench("show", trained).out
    assert "method        at (" in page and "pgd (steps 3" in page and "of 3, seed 0" in page
    assert "validation    clean_acc " in page and "%" in page
    page = cembench("show", REFERENCE / "at").out
    assert "Records\n- " in page and "autoattack 82.8%" in page


def test_show_tells_of_a_folder_of_runs_and_of_a_config(cembench, runs):
    shutil.rmtree(runs / "damaged")
    page = cembench("show", runs).out.splitlines()
    assert page[0].split()[:3] == ["run", "method", "model"]
    assert [line.split()[:2] for line in page[1:]] == [
        [f"{runs}/deep/two", "at"],
        [f"{runs}/one", "at"],
    ]
    assert [*json.loads(cembench("show", runs, "--json").out)] == [
        f"{runs}/deep/two",
        f"{runs}/one",
    ]
    page = cembench("show", ROOT / "cembench/recipes/quickstart.yaml").out
    assert "suite, protocol quick: cembench run " in page
    assert [line.split()[0] for line in page.splitlines()[3:]] == [
        *("standard", "at", "trades", "jem-sgld", "jem-pgd", "cem")
    ]
    assert "cembench train" in cembench("show", ROOT / "cembench/recipes/digits-at.yaml").out
    (runs / "empty").mkdir()
    assert "holds no runs" in cembench("show", runs / "empty").err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("eval", "runs/ones"), "did you mean runs/one?"),
        (("show", "rums/one"), "did you mean runs?"),
        (("compare", "runs/onee", "runs/one"), "did you mean runs/one?"),
        (("leaderboard", "run"), "did you mean runs?"),
        (("train", "digits-att"), "did you mean 'digits-at'?"),
        (("evl", "runs"), "did you mean 'eval'?"),
    ],
)
def test_what_was_probably_meant_is_told(cembench, runs, monkeypatch, words, meant):
    monkeypatch.chdir(runs.parent)
    refused = cembench(*words)
    assert refused.code == 2 and refused.err.splitlines()[-1].endswith(meant)


@pytest.mark.parametrize(
    "words", [["verify", "x"], ["-q", "list"], ["leaderboard", "--format", "html"], ["eval", "-qv"]]
)
def test_wrong_arguments_are_one_line(cembench, words):
    result = cembench(*words)
    assert result.code == 2 and result.out == "" and result.err.count("\n") == 1
    assert result.err.startswith("cembench: error: ") and "--help" in result.err
