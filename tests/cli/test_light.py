"""Commands and mistakes that are answered without torch, which takes seconds to import."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cembench.cli import main

ROOT = Path(__file__).parents[2]
RUN = str(ROOT / "leaderboards/reference/at")
(RECORD,) = map(str, Path(RUN).glob("eval/baseline-*.json"))
(OTHER,) = Path(RUN).with_name("trades").glob("eval/baseline-*.json")
AT = str(ROOT / "cembench/recipes/digits-at.yaml")

# Every command is in one of the two tables, which decide what it may import.
WITH_TORCH = {"train", "probe", "run", "work", "eval", "sample", "bench", "check", "verify"}
WITH_TORCH |= {"import", "export", "push", "transfer", "doctor", "submit", "accept"}
WITHOUT_TORCH = {
    "completion": [["bash"]],
    "data": [["list"]],
    "init": [["mine.yaml"]],
    "list": [[], ["attacks"], ["models"], ["trades"], ["rcs"], ["resnet18"], ["quick"]],
    "show": [[RECORD], [RUN], [RUN, "--json"]],
    "leaderboard": [[RUN, "--out", "boards"]],
    "compare": [[RECORD, str(OTHER)]],
    "plot": [[RUN]],
    "pull": [],  # what it fetches is in tests/interop/test_hub.py
    "records": [[RUN], [RUN, "--to", "records.parquet", "--where", "clean > 0.5"]],
    "report": [[RUN, "--images", "0"]],  # images need the network
    "site": [[RUN, "--images", "0"]],
    "status": [],
}
TABLES = ("leaderboard", "compare", "plot", "records", "report", "site")  # which need pandas
WRONG = {
    "train": [["none.yaml"], [AT, "epocs=2"], [AT, "method=pgd"], [AT, "threat.norm=l3"]],
    "eval": [[RUN, "atacks=1"], [RUN, "--protocol", "quik"], [RUN, "attacks=[pgdd]"]],
    "sample": [[RUN, "stepz=1"], [RUN, "--sampler", "rcz"]],
    "run": [["wrong.yaml"]],
    "status": [["--out", "none"]],
    "check": [[RUN, "--baseline", "wrong.yaml"]],
    "pull": [["s4://board/at"], ["hf://me"], ["hf://me/at", "--out", "s3://runs"]],
}

CODE = """
import json, sys
from pathlib import Path
from cembench.cli import main
Path("wrong.yaml").write_text("modle: small_cnn")
for call in json.loads(sys.argv[1]):
    try:
        main(call, standalone_mode=False)
        code = 0
    except SystemExit as error:
        code = error.code
    print(json.dumps([call, code, sorted(sys.modules)]), file=sys.stderr)
"""


def answered(folder, calls):
    """Call commands one after the other in a process; yield call, exit code, imported modules."""
    command = [sys.executable, "-c", CODE, json.dumps(calls)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("[[")]
    assert len(lines) == len(calls), done.stderr
    return [json.loads(line) for line in lines]


def test_every_command_is_in_a_table():
    assert {*main.list_commands(click.Context(main))} == WITH_TORCH | {*WITHOUT_TORCH}
    assert not WITH_TORCH & {*WITHOUT_TORCH}


@pytest.mark.parametrize("tables", [False, True], ids=["pages", "tables"])
def test_commands_that_touch_no_tensor_do_not_import_torch(tmp_path, tables):
    chosen = [name for name in WITHOUT_TORCH if (name in TABLES) == tables]
    helps = [] if tables else [[name, "--help"] for name in main.list_commands(click.Context(main))]
    calls = [[name, *args] for name in chosen for args in WITHOUT_TORCH[name]]
    for call, code, modules in answered(tmp_path, [*helps, *calls]):
        assert code == 0, call
        heavy = {"torch", "torchvision", "sklearn"} | (set() if tables else {"pandas", "scipy"})
        assert not heavy & {*modules}, call


def test_a_mistake_in_settings_is_told_before_torch_is_imported(tmp_path):
    calls = [[name, *args] for name, all_args in WRONG.items() for args in all_args]
    for call, code, modules in answered(tmp_path, calls):
        assert code == 2 and not {"torch", "pandas", "scipy"} & {*modules}, call


def test_every_setting_is_read_without_torch(tmp_path):
    code = (
        "import sys; from cembench.cli.names import KINDS, classes, names\n"
        "for kind in KINDS:\n    for name in names(kind):\n        classes(name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_is_loaded_with_torch_alone():
    code = (
        f"import sys, cembench; cembench.load({RUN!r})\n"
        "sys.exit(bool({'torchvision', 'pandas', 'scipy', 'sklearn'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
