"""Checkpoints beside records: which are those that were measured, and what of them is read."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cembench.reporting.leaderboard import find_records
from cembench.util.files import checksums
from cembench.util.files.layout import RunLayout
from cembench.util.files.seal import seal_at_start
from tests.support.records import touch

FIXTURE = Path(__file__).parents[1] / "fixtures/format-4/at"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with records of an earlier version, which do not say the seal of the checkpoint."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "SETTLED", -1.0)
    return RunLayout(shutil.copytree(FIXTURE, tmp_path / "runs" / "at"))


@pytest.fixture
def sealed(run):
    """The same, whose records say it."""
    for path in run.records():
        touch(path, ("checkpoint_seal", seal_at_start(run.checkpoint.read_bytes())))
    return run


@pytest.fixture
def reads(monkeypatch):
    """The checkpoints that are read as a whole."""
    found, read = [], checksums.sha256
    monkeypatch.setattr(checksums, "sha256", lambda path: found.append(path) or read(path))
    return found


def replaced(run, **how):
    return {record.replaced for record in find_records([run.folder.parent], **how).values()}


def spoil(run, place):
    content = bytearray(run.checkpoint.read_bytes())
    content[place] ^= 1
    run.checkpoint.write_bytes(content)


def test_a_seal_tells_without_reading_the_weights(sealed, reads):
    assert replaced(sealed) == {False} and reads == []
    content = sealed.checkpoint.read_bytes()
    digits = re.search(rb"sha256:(\w+)", content)[1]
    sealed.checkpoint.write_bytes(content.replace(digits, digits[::-1]))
    assert replaced(sealed) == {True} and reads == []


def test_verification_reads_every_checkpoint_once(sealed, reads):
    assert replaced(sealed, verify=True) == {False} and reads == [sealed.checkpoint]
    spoil(sealed, -1)
    assert replaced(sealed) == {False} and replaced(sealed, verify=True) == {True}


def test_records_of_earlier_versions_are_compared_with_the_whole_file_once(run, reads):
    for _ in range(3):
        assert replaced(run) == {False} and reads == [run.checkpoint]
    spoil(run, -1)
    assert replaced(run) == {True} == replaced(run) and len(reads) == 2


def test_a_table_is_the_same_with_what_is_kept_and_without(cembench, run, tmp_path):
    spoil(run, -1)
    tables = []
    for number, harm in enumerate((None, None, "delete", "damage")):
        if harm == "delete":
            checksums.database_file().unlink()
        elif harm:
            checksums.database_file().write_bytes(b"no database")
        out = tmp_path / f"tables{number}"
        assert cembench("leaderboard", run.folder.parent, "--out", out).code == 0
        tables.append({file.name: file.read_text() for file in out.iterdir()})
    assert tables[0] == tables[1] == tables[2] == tables[3] and "replaced" in str(tables[0])
    done = cembench("leaderboard", "--verify", run.folder.parent, "--out", tmp_path / "verified")
    assert done.code == 0
    assert {f.name: f.read_text() for f in (tmp_path / "verified").iterdir()} == tables[0]


def test_a_run_that_is_a_link_is_in_the_table(cembench, run, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "mine").symlink_to(run.folder)
    (folder / "loop").symlink_to(folder)
    for runs in (run.folder.parent, folder):
        assert cembench("leaderboard", runs, "--out", tmp_path / runs.name).code == 0
    names = [file.name for file in (tmp_path / "runs").glob("*.csv")]
    assert names
    for name in names:
        one, other = (pd.read_csv(tmp_path / out / name) for out in ("runs", "links"))
        pd.testing.assert_frame_equal(one, other)
