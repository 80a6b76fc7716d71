"""Checksums of files that were read before: right whatever happens to what is kept."""

import hashlib
import multiprocessing
import os
import sqlite3
import time

import pytest

from cembench.util.errors import CembenchError
from cembench.util.files import checksums as module
from cembench.util.files.checksums import Checksums, database_file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SETTLED", -1.0)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def reads(monkeypatch):
    """The files that are read."""
    found = []

    def counted(path):
        found.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(module, "sha256", counted)
    return found


def checksum(path, **how):
    with Checksums(**how) as found:
        assert found.of(path) == found.of(path)
        assert found.of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_once(file, reads):
    for _ in range(3):
        checksum(file)
    assert reads == ["model.safetensors"]


def test_verification_reads_each_file_once_more(file, reads):
    checksum(file)
    checksum(file, verify=True)
    assert len(reads) == 2


def test_another_file_of_the_same_size_and_time_is_read(file, reads):
    checksum(file)
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    checksum(file)
    file.write_bytes(b"wEIGHTS")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    checksum(file)
    assert len(reads) == 3


def test_what_was_just_written_is_not_kept(file, reads, monkeypatch):
    """It may change again within the granularity of its time stamp."""
    monkeypatch.setattr(module, "SETTLED", 2.0)
    checksum(file)
    checksum(file)
    late = time.time() + 10
    monkeypatch.setattr(module.time, "time", lambda: late)
    checksum(file)
    checksum(file)
    assert len(reads) == 3


def delete():
    database_file().unlink()


def cut():
    database_file().write_bytes(database_file().read_bytes()[:5000])


def overwrite():
    database_file().write_bytes(b"no database" * 1000)


def other_table():
    with sqlite3.connect(database_file()) as database:
        database.execute("DROP TABLE files")
        database.execute("CREATE TABLE files (path, wrong)")


def forge():
    with sqlite3.connect(database_file()) as database:
        database.execute("UPDATE files SET sha256 = replace(sha256, substr(sha256, 1, 1), 'x')")


def folder():
    database_file().unlink()
    database_file().mkdir()


@pytest.mark.parametrize("harm", [delete, cut, overwrite, other_table, forge, folder])
def test_a_database_that_is_lost_or_damaged_costs_time_alone(file, reads, harm):
    checksum(file)
    harm()
    checksum(file)
    assert len(reads) == 2
    if harm in (delete, forge):
        checksum(file)
        assert len(reads) == 2


def test_a_damaged_database_is_replaced(file, reads):
    database_file().parent.mkdir(parents=True)
    database_file().write_bytes(b"no database" * 1000)
    for _ in range(3):
        checksum(file)
    assert len(reads) == 2


def test_without_a_cache_files_are_read(file, reads, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    checksum(file)
    checksum(file)
    assert len(reads) == 2


def test_a_cache_that_another_process_holds_is_done_without(file, reads, monkeypatch):
    checksum(file)
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    with sqlite3.connect(database_file(), isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        checksum(file)
        holder.execute("ROLLBACK")
    checksum(file)
    assert len(reads) == 2


def test_a_cache_that_cannot_be_written_is_still_read(file, reads):
    other, last = file.with_name("other"), file.with_name("last")
    for path in (other, last):
        path.write_bytes(path.name.encode())
    checksum(file)
    checksum(last)
    with Checksums() as found:
        found.of(file)
        found._run("PRAGMA query_only = 1")
        found.of(other)
        found.of(last)
    checksum(other)
    assert reads == ["model.safetensors", "last", "other", "other"]


def _all_of(paths):
    with Checksums() as found:
        return [found.of(path) for path in paths]


def test_processes_share_it(tmp_path):
    paths = [tmp_path / f"net{number}" for number in range(30)]
    for path in paths:
        path.write_bytes(path.name.encode())
    with multiprocessing.get_context("fork").Pool(4) as pool:
        every = pool.map(_all_of, [paths, paths[::-1], paths, paths[::-1]])
    expected = [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    assert every == [expected, expected[::-1]] * 2
    with sqlite3.connect(database_file()) as database:
        assert database.execute("SELECT count(*) FROM files").fetchone() == (30,)


def test_names_that_are_not_text_and_missing_files(tmp_path):
    odd = tmp_path / os.fsdecode(b"net\xff")
    odd.write_bytes(b"odd")
    checksum(odd)
    with Checksums() as found, pytest.raises(CembenchError, match=r"cannot read .*none"):
        found.of(tmp_path / "none")
