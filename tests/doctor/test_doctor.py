"""`cembench doctor`: finds what would make cembench fail, tells the remedy, and keeps secrets."""

import json
import sys
from pathlib import Path

import pytest

from cembench.doctor import examine, machine, places, software
from cembench.doctor.finding import Finding


@pytest.fixture
def problems(monkeypatch, tmp_path):
    """Return the problems that are found, as texts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cembench.util.registry._named", {})  # by tests that ran before
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def find(*plugins):
        return [f"{one.text} → {one.remedy}" for one in examine(plugins) if one.state == "problem"]

    return find


def test_a_machine_on_which_tests_run_has_no_problem(cembench, problems, tmp_path):
    done = cembench("doctor")
    assert done.code == 0 and done.out.splitlines()[-1].startswith("problems: 0, notes: ")
    for part in ("Python 3.", "torch 2.", "cores, ", "here: digits", "can be written and locked"):
        assert part in done.out
    found = json.loads(cembench("doctor", "--json").out)
    assert {one["state"] for one in found} <= {"ok", "note"}
    assert [*found[0]] == ["topic", "state", "text", "remedy"]
    assert not list(tmp_path.iterdir()), "what it tried is gone"


def test_a_broken_torch_is_a_finding(cembench, problems, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (found,) = problems()
    assert "torch cannot be imported" in found and "pip install" in found
    assert cembench("doctor").code == 1


def test_a_check_that_breaks_is_a_finding(problems, monkeypatch):
    def broken():
        raise ImportError("no libfoo.so")

    monkeypatch.setattr(software, "packages", broken)
    assert problems() == ["cannot be told: ImportError: no libfoo.so → see the findings above"]


def test_missing_packages_and_plugins_are_problems(problems, monkeypatch, tmp_path):
    needs = {"cembench": ["click>=8", "nosuchpackage>=1"], "torchvision": ["torch==1.0"]}
    monkeypatch.setattr(software, "requires", needs.get)
    (tmp_path / "mine.py").write_text("raise SystemExit('it was imported')")
    missing, unfit, plugin = problems("mine.nets", "nosuchplugin")
    assert "pip install 'nosuchpackage>=1'" in missing and "torchvision takes ==1.0" in unfit
    assert "nosuchplugin cannot be found" in plugin


def test_a_folder_that_cannot_be_written_or_is_full_is_a_problem(problems, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(places, "NamedTemporaryFile", refuse)
    monkeypatch.setattr(places, "NONE", 1e18)
    monkeypatch.setattr(places, "LITTLE", 1e18)
    told = " ".join(problems())
    assert told.count("cannot write in ") == 2 and told.count("free some space") == 2
    assert "XDG_CACHE_HOME" in told and "--out" in told


def test_too_many_threads_are_told_with_the_number_to_set(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    finding, *_ = machine.threads()
    assert finding.state == "note" and finding.remedy == "export OMP_NUM_THREADS=2"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert next(machine.threads()).state == "ok"


def test_secrets_and_the_home_folder_are_not_shown(cembench, problems, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_sesame")
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:sesame@proxy:3128")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.home() / "nowhere"))
    told = cembench("doctor", "--json").out + cembench("doctor").out
    assert "sesame" not in told and "HF_TOKEN=(set)" in told and "(login)@proxy" in told
    assert "~/nowhere" in told and f"{Path.home()}/nowhere" not in told


def test_wrong_variables_are_problems(problems, monkeypatch):
    monkeypatch.setenv("CEMBENCH_TIMEOUT", "soon")
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    assert ["TIMEOUT" in found or "OMP" in found for found in problems()] == [True, True]


def test_every_finding_is_one_line():
    for one in examine():
        assert isinstance(one, Finding) and "\n" not in one.text + one.remedy
