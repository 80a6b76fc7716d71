"""The board of `examples/board`: pull requests to a bare repository, merged or refused."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.entries import Forger

BOARD = Path(__file__).parents[2] / "examples/board"
SCRIPT = BOARD / "check_pull_request.py"
EVERYBODY = ("-c", "user.name=A", "-c", "user.email=a@example.org")


def git(folder, *arguments):
    command = ["git", "-C", folder, *EVERYBODY, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def board(tmp_path):
    """A clone of a bare repository with an empty board."""
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "board.git")
    git(tmp_path, "clone", "-q", "board.git", "keeper")
    keeper = tmp_path / "keeper"
    git(keeper, "switch", "-q", "-c", "main")
    shutil.copytree(BOARD, keeper, dirs_exist_ok=True)
    (keeper / "entries").mkdir()
    (keeper / "entries/.gitkeep").touch()
    git(keeper, "add", "-A")
    git(keeper, "commit", "-q", "-m", "Board")
    git(keeper, "push", "-q", "origin", "main")
    return keeper


@pytest.fixture
def pull(board, tmp_path, plan, monkeypatch, capsys):
    """Open a pull request, and check it: return exit code and page."""
    spec = importlib.util.spec_from_file_location("check_pull_request", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "K")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "k@example.org")

    def check(name, change):
        theirs = tmp_path / name
        git(tmp_path, "clone", "-q", "board.git", name)
        git(theirs, "switch", "-q", "-c", name)
        change(theirs)
        git(theirs, "add", "-A")
        git(theirs, "commit", "-q", "-m", name)
        git(theirs, "push", "-q", "origin", name)
        git(board, "fetch", "-q", "origin", name)
        monkeypatch.chdir(board)
        options = ["--merge", "--", "--protocol", str(plan), "--seed", "0", "--device", "cpu"]
        code = script.main(["main", "FETCH_HEAD", "--report", str(tmp_path / "page.md"), *options])
        assert (tmp_path / "page.md").read_text() == capsys.readouterr().out
        assert git(board, "status", "--porcelain") == ""
        git(board, "push", "-q", "origin", "main")
        return code, (tmp_path / "page.md").read_text()

    return check


def test_pull_requests(board, pull, honest, tmp_path):
    def add(name, forge=lambda forger: None, also=lambda theirs: None):
        def change(theirs):
            forge(Forger(Path(shutil.copytree(honest, theirs / "entries" / name))))
            also(theirs)

        return pull(name, change)

    def better(forger):
        figures = forger.record.figures
        changed = figures["pgd"].model_copy(update={"correct": 64})
        forger.write(figures={**figures, "pgd": changed})

    def script(theirs):
        (theirs / "check_pull_request.py").write_text("print('accepted')")

    def link(theirs):
        (theirs / "entries/linked/README.md").unlink()
        (theirs / "entries/linked/README.md").symlink_to("/etc/passwd")

    def second(theirs):
        shutil.copytree(honest, theirs / "entries/second")

    code, page = add("forged", better)
    assert code == 1 and page.startswith("# honest: refused") and "figure pgd" in page

    def bytes_in_name(theirs):
        (theirs / os.fsdecode(b"entries/bytes/![x](y)\xff")).write_text("")

    for name, also, reason in (
        ("bytes", bytes_in_name, "    'entries/bytes/![x](y)\\udcff' is no plain file"),
        ("scripted", script, "it changes 'check_pull_request.py'"),
        ("linked", link, "is no plain file"),
        ("first", second, "it adds 2 entries"),
    ):
        code, page = add(name, also=also)
        assert code == 1 and reason in page and page.startswith("# Pull request: refused")
    assert git(tmp_path / "board.git", "ls-tree", "-r", "--name-only", "main", "entries") == (
        "entries/.gitkeep"
    )
    code, page = add("whatever")  # the entry says how it is called
    assert code == 0 and page.startswith("# honest: accepted")
    shown = git(tmp_path / "board.git", "show", "main:entries/honest/accepted.json")
    assert json.loads(shown)["outcome"] == "recounted"
    assert "whatever" in git(tmp_path / "board.git", "log", "--format=%s", "main^2")
    code, page = add("copied", lambda forger: forger.facts(name="copied"))
    assert code == 1 and "entry with the same weights" in page

    def edit(theirs):
        (theirs / "entries/honest/accepted.json").write_text("{}")

    code, page = pull("edited", edit)
    assert code == 1 and "it changes 'entries/honest/accepted.json'" in page


def test_the_workflow_has_the_least_rights():
    workflow = YAML(typ="safe").load(BOARD / ".github/workflows/entries.yml")
    assert workflow["permissions"] == {} and "pull_request_target" not in workflow["on"]
    rights = {name: job["permissions"] for name, job in workflow["jobs"].items()}
    assert rights == {"check": {"contents": "read"}, "merge": {"contents": "write"}}
    for job in workflow["jobs"].values():
        checkout, *steps = job["steps"]
        assert checkout["with"]["ref"] == "main" and not checkout["with"]["persist-credentials"]
        for step in steps:
            assert "${{" not in step.get("run", ""), "text of strangers could be run"
            inspects = "check_pull_request" in step.get("run", "")
            assert not (inspects and "TOKEN" in step["env"])
