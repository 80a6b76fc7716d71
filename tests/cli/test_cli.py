"""The command line as a user meets it; the quickstart, shrunk."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pandas as pd
import pytest

from cembench.cli import main
from cembench.methods import methods
from cembench.util.files.parquet import read_frame
from cembench.util.files.yaml import to_yaml
from cembench.util.shipped import shipped
from tests.conftest import NOTHING, TINY, experiment
from tests.support.forks import call_apart

ROOT = Path(__file__).parents[2]

QUICK = {
    "limit": 24,
    "attacks": [
        {"name": "torchattacks", "attack": "FGSM"},
        {"name": "pgd", "steps": 3},
        "autoattack",
    ],
}


def suite(tmp_path, **experiments):
    (tmp_path / "proto.yaml").write_text(to_yaml(QUICK))
    content = {"protocol": "proto.yaml", "shared": TINY, "experiments": experiments}
    (tmp_path / "suite.yaml").write_text(to_yaml(content))
    return tmp_path / "suite.yaml"


def test_help_answers_without_torch():
    code = (
        "import sys; from cembench.cli import main; main(['--help'], standalone_mode=False);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'pydantic')))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    )


def test_list_needs_no_torch_and_knows_everything(cembench):
    code = (
        "import sys; from cembench.cli import main; main(['list'], standalone_mode=False);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "methods: adv-infonce, at, cem, cem-b, dat, eb-jdat" in done.stdout
    assert cembench("list", "methods").out.split() == methods.names()
    assert cembench("list", "protocols").out.split() == shipped("protocol")


def test_the_quickstart_shrunk(cembench, tmp_path, short_autoattack):
    """Train, evaluate and rank; then again, without doing anything twice."""
    path = suite(tmp_path, plain={"method": "standard"}, robust={})
    first = cembench("run", path, "--out", tmp_path / "runs", "--device", "cpu")
    assert first.code == 0 and "| robust |" in first.out and "autoattack ↑" in first.out
    table = pd.read_csv(tmp_path / "runs/leaderboards/digits-linf-0.125.csv", index_col="run")
    assert table["autoattack_acc"].idxmin() == "plain" and (table["n_images"] == 24).all()
    assert (table["autoattack_acc"] >= table["worst_case_acc"]).all()
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*/**/*") if p.is_file()}
    made = [p for p in files if "leaderboards" not in p.parts]
    second = cembench("run", path, "--out", tmp_path / "runs", "--device", "cpu")
    assert second.out == first.out
    assert all(p.stat().st_mtime_ns == files[p] for p in made)

    (path,) = (tmp_path / "runs/robust/eval").glob("proto-*.json")
    verdicts, record = read_frame(path.with_suffix(".parquet")), json.loads(path.read_text())
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".json", ".parquet"]
    correct = (verdicts["label"] == verdicts["clean_pred"]) & ~verdicts["autoattack_broken"]
    assert correct.sum() == record["figures"]["autoattack"]["correct"]
    assert record["environment"]["pyautoattack"] and len(record["checkpoint_sha256"]) == 64
    assert (
        sum(record["figures"]["autoattack"]["won"].values()) == verdicts["autoattack_broken"].sum()
    )


def test_a_failing_experiment_does_not_stop_the_others(cembench, tmp_path, short_autoattack):
    path = suite(tmp_path, bad={"optimizer": {"lr": 1e30}}, good={"epochs": 1})
    result = cembench("run", path, "--out", tmp_path / "runs")
    assert result.code == 2 and "| good |" in result.out
    assert "experiment bad" in result.err.splitlines()[-1]
    table = pd.read_csv(tmp_path / "runs/leaderboards/digits-linf-0.125.csv", index_col="run")
    assert "training diverged" in table.loc["bad", "error"]
    assert pd.isna(table.loc["bad", "clean_acc"]) and table.loc["bad", "divergences"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"experiments": {}}, "experiments"),
        ({"experiment": {"a": {}}}, "did you mean 'experiments'"),
        ({"experiments": {"a": {"data": "digits"}}}, "experiment a: model: required"),
        ({"experiments": {"../a": TINY}}, "experiments"),
        ({"experiments": {"leaderboards": TINY}}, "choose another name"),
        ({"experiments": {"a": {**TINY, "epochz": 1}}}, "experiment a: epochz.*'epochs'"),
        ({"protocol": "standart", "experiments": {"a": TINY}}, "did you mean 'standard'"),
    ],
)
def test_wrong_suites_are_refused_before_anything_is_trained(cembench, tmp_path, content, message):
    (tmp_path / "s.yaml").write_text(to_yaml(content))
    result = cembench("run", tmp_path / "s.yaml", "--out", tmp_path / "runs")
    assert result.code == 2 and not (tmp_path / "runs").exists()
    assert len(result.err.splitlines()) == 1
    import re

    assert re.search(message, result.err)


def test_train_then_eval_then_leaderboard(cembench, tmp_path):
    (tmp_path / "c.yaml").write_text(to_yaml(experiment().dump()))
    done = cembench(
        "train", tmp_path / "c.yaml", "--set", "epochs=1", "--out", tmp_path, "--name", "r"
    )
    assert done.code == 0 and done.out.strip() == str(tmp_path / "r" / "model.safetensors")
    samples = "samples={count: 30, samplers: [rcs], extractor: {name: lite0, size: 32}}"
    args = ("--limit", 30, "attacks=[{name: pgd, steps: 2}]", samples, *NOTHING[2:])
    table = cembench("eval", tmp_path / "r", *args, "--set", "threat.eps=0.1")
    assert table.code == 0 and "linf-0.1" in table.out and "on 30 test images" in table.out
    printed = cembench("eval", tmp_path / "r", *args, "--json")
    record = json.loads(printed.out)[0]
    assert record["figures"]["clean"]["images"] == 30 and record["threat"]["eps"] == 0.125
    board = cembench("leaderboard", tmp_path, "--out", tmp_path / "boards")
    assert board.code == 0
    written = sorted(p.name for p in (tmp_path / "boards").iterdir())
    assert written == [
        "digits-linf-0.1.csv",
        "digits-linf-0.1.md",
        "digits-linf-0.125.csv",
        "digits-linf-0.125.md",
        "digits-samples-gaussian.csv",
        "digits-samples-gaussian.md",
    ]


def test_a_bad_checkpoint_does_not_lose_the_good_ones(cembench, trained, tmp_path):
    attack = ("--limit", 10, "--set", "attacks=[{name: pgd, steps: 1}]", *NOTHING[1:])
    copy = tmp_path / "good" / "model.safetensors"
    copy.parent.mkdir()
    copy.write_bytes((trained / "model.safetensors").read_bytes())
    result = cembench("eval", tmp_path / "none", copy, *attack)
    assert result.code == 2 and "| good |" in result.out
    assert "No such file" in result.err.splitlines()[-1]
    assert "none" in cembench("leaderboard", tmp_path / "good", tmp_path / "none").err
    # A record of a checkpoint that another one replaced says so.
    assert cembench("leaderboard", tmp_path, "--out", tmp_path / "b").code == 0
    copy.write_bytes(b"other")
    assert "⚠ replaced" in cembench("leaderboard", tmp_path, "--out", tmp_path / "b").out


def test_an_evaluation_that_cannot_be_written_fails_before_it_attacks(cembench, trained, tmp_path):
    copy = tmp_path / "model.safetensors"
    copy.write_bytes((trained / "model.safetensors").read_bytes())
    (tmp_path / "eval").write_text("a file where a folder should be")
    result = cembench("eval", copy)
    assert result.code == 2 and "cannot write" in result.err and len(result.err.splitlines()) == 1


def test_one_line_exit_2_and_a_traceback_on_request(cembench, trained, tmp_path):
    for args in (
        ("train", tmp_path / "none.yaml"),
        ("eval", trained, "--protocol", "nope"),
        ("eval", trained, "--data-root", "x"),
        ("leaderboard", tmp_path),
        ("train", "digits-at", "--set", "epochs"),
    ):
        result = cembench(*args)
        assert result.code == 2 and len(result.err.splitlines()) == 1, args
        assert result.err.startswith("cembench: error: ") and not result.out
        assert "Traceback" in cembench(*args, "--debug").err
    assert cembench("trian").code == 2


PLUGIN = """
import torch
from typing import ClassVar
from cembench.models import ModelSettings, models


class Odd(torch.nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        self.wrong = wrong

    def forward(self, x):
        out = self.body(x)
        if self.wrong and not self.training and len(x) > 1 and not torch.is_grad_enabled():
            return out * float("nan")
        return out


@models.register
class OddSettings(ModelSettings):
    name: ClassVar[str] = "odd"
    wrong: bool = False

    def build(self, shape, classes):
        return Odd(self.wrong)
"""


def test_a_plugin_brings_a_model_and_a_nan_network_is_an_error_row(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    config = {**TINY, "model": "odd", "method": "standard", "epochs": 1}
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    unknown = call_apart(tmp_path, "train", "c.yaml")
    assert unknown.returncode == 2 and "unknown model 'odd'" in unknown.stderr
    assert call_apart(tmp_path, "train", "c.yaml", "--plugin", "mine").returncode == 0
    attack = ("attacks=[pgd]", *NOTHING[1:], "--limit", "20", "--plugin", "mine")
    fine = call_apart(tmp_path, "eval", "runs/c", *attack)
    assert fine.returncode == 0 and "| c | standard |" in fine.stdout
    nan = ("--set", "model.wrong=true", "--name", "nan", "--plugin", "mine")
    assert call_apart(tmp_path, "train", "c.yaml", *nan).returncode == 0
    failed = call_apart(tmp_path, "eval", "runs/nan", *attack)
    assert failed.returncode == 2 and "not finite on clean images" in failed.stderr.splitlines()[-1]
    assert "not finite" in failed.stdout and "%" not in failed.stdout.split("| nan |")[1]
    gone = call_apart(tmp_path, "eval", "runs/c", "--plugin", "nowhere")
    assert gone.returncode == 2 and "plugin cannot be imported" in gone.stderr


def test_bench_prints_ratio_and_json(cembench):
    args = ("bench", "train", "--model", "small_cnn", "--batch", 4, "--rounds", 1)
    for method in ("infonce", "adv-infonce"):
        assert f"| train {method} |" in cembench(*args, "--method", method).out
    assert "did you mean 'infonce'" in cembench(*args, "--method", "infonze").err
    assert "| ratio |" in cembench(*args).out
    (row,) = json.loads(cembench(*args, "--json").out)
    assert row["work"] == "train at" and row["network"] == "small_cnn" and row["ratio"] > 0


def test_every_command_has_help(cembench):
    for name in main.list_commands(click.Context(main)):
        assert cembench(name, "--help").code == 0


def test_the_help_of_every_command_fits_in_a_line(cembench):
    assert "..." not in cembench("--help").out.replace("[ARGS]...", "")


def test_help_ends_with_an_example_that_can_be_parsed(cembench):
    root = click.Context(main)
    for name in main.list_commands(root):
        last = cembench(name, "--help").out.rstrip().splitlines()[-1]
        program, called, *arguments = shlex.split(last.strip().removeprefix("Example: "))
        assert (program, called) == ("cembench", name)
        main.get_command(root, name).make_context(name, arguments)


def test_help_of_options_is_short():
    root = click.Context(main)
    commands = [main.get_command(root, name) for name in main.list_commands(root)]
    options = [
        one for command in commands for one in command.params if isinstance(one, click.Option)
    ]
    assert not [one.name for one in options if not one.help or len(one.help) > 60]


@pytest.mark.parametrize("option", ["--extractor-weights", "--inception-weights"])
def test_the_extractor_weights_have_two_names(cembench, trained, tmp_path, option):
    refused = cembench("eval", trained, option, tmp_path / "none")
    assert refused.code == 2 and "the extractor is lite0" in refused.err
