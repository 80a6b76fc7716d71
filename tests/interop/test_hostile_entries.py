"""Entries of attackers: what no reader foresaw, files that nothing reads, and bombs."""

import json
import math
import os
import shutil
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cembench.data import datasets
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.verify import verify_record
from cembench.interop.submission.accept import _moved, accept
from cembench.interop.submission.page import page_of
from cembench.interop.submission.redraw import _standard_errors
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.files.layout import RunLayout
from cembench.util.files.seal import UNSEALED, seal
from cembench.util.shared import sharing
from tests.support.checkpoints import rewrite
from tests.support.entries import survive


@pytest.fixture(scope="module", autouse=True)
def shared_data():
    """Read images and the extractor once."""
    with sharing():
        yield


def test_files_that_no_entry_has(forger, refused, tmp_path):
    (forger.entry / "plugin.py").write_text("raise SystemExit")
    (forger.entry / "eval/model.pkl").write_bytes(b"\x80\x04")
    forger.facts()
    assert "found eval/model.pkl, plugin.py" in refused(forger.entry)


def add_sample(forger):
    (first, *_) = sorted(RunLayout.samples(forger.path).iterdir())
    shutil.copy(first, first.with_name("rcs-gaussian.film.safetensors"))
    forger.facts()


def add_chunk(forger):
    (first, *_) = sorted(RunLayout.samples(forger.path).iterdir())
    shutil.copy(first, first.with_name("rcs-gaussian.2.safetensors"))
    forger.facts()


def add_buffer(forger):
    (forger.entry / "buffer.safetensors").write_bytes(b"film")
    forger.facts()


def add_folders(forger):
    for number in range(50):
        (forger.entry / f"{number}").mkdir()


def add_case(forger):
    (first, *_) = sorted(RunLayout.samples(forger.path).iterdir())
    shutil.copy(first, first.with_name(first.name.upper()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (add_sample, "found rcs-gaussian.film.safetensors"),
        (add_chunk, "files of samples of rcs-gaussian: expected 2, found 3"),
        (add_buffer, "replay buffer: expected none"),
        (lambda forger: forger.images(film=torch.zeros(9)), "other tensors of pgd: expected none"),
        (add_folders, "number of files and folders: expected 40 at most"),
        (add_case, "are the same file on some systems"),
    ],
)
def test_what_nothing_would_read(forger, refused, not_attacked, monkeypatch, change, reason):
    monkeypatch.setattr("cembench.interop.submission.received.MOST_FILES", 40)
    change(forger)
    assert reason in refused(forger.entry)


def test_tables_that_take_more_memory_than_their_files(forger, refused):
    def table(**columns):
        pq.write_table(pa.table(columns), place, store_schema=False)
        record = json.loads(forger.path.read_text())
        record |= {"table_sha256": sha256(place), "seal": UNSEALED}
        forger.path.write_bytes(seal(json.dumps(record).encode()))
        forger.facts()
        return refused(forger.entry)

    place, rows = RunLayout.table(forger.path), pa.array([0] * 2000)
    text = pa.DictionaryArray.from_arrays(rows.cast("int32"), pa.array(["x" * 10**6]))
    for column in (text, pa.array([[0]] * 2000), pa.array([b"x" * 9] * 2000, pa.binary(9))):
        assert "damaged, or not the table" in table(index=rows, pgd_by=column)
    assert place.stat().st_size < 10**5


def test_records_that_no_reader_foresaw(forger, refused, not_attacked):
    def record(**changes):
        values = json.loads(forger.path.read_text()) | {"seal": UNSEALED} | changes
        forger.path.write_bytes(seal(json.dumps(values).encode()))
        forger.facts()
        return refused(forger.entry)

    table = forger.table
    forger.write(table.assign(pgd_broken=table["pgd_broken"].astype(int)))
    assert "columns: expected numbers and verdicts" in refused(forger.entry)
    attack = forger.record.protocol["attacks"][0]
    attacks = [{**attack, "label": f"a{number}"} for number in range(2000)]
    assert "protocol: expected one of" in record(
        protocol={**forger.record.protocol, "attacks": attacks}
    )
    assert "not a record" in record(format=math.inf)
    shutil.rmtree(forger.entry / "eval")
    shutil.rmtree(forger.entry / "samples")
    forger.facts()
    assert "records: expected one, found 0" in refused(forger.entry)


def test_errors_that_nobody_foresaw_refuse_an_entry(forger, refused, monkeypatch, tmp_path):
    def fail(*args):
        raise KeyError("odd")

    with monkeypatch.context() as patch:
        patch.setattr("cembench.interop.submission.accept._Inspection.inspect", lambda *args: None)
        patch.setattr("cembench.interop.submission.board.write_card", fail)
        assert "found KeyError: 'odd'" in refused(forger.entry, board=tmp_path / "board")
    assert not (tmp_path / "board").exists()
    monkeypatch.setattr("cembench.interop.submission.counts._check_figures", fail)
    assert "expected one that can be read, found KeyError: 'odd'" in refused(forger.entry)


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="paths are opened at once here")
def test_a_folder_that_becomes_a_link_while_it_is_copied(forger, plan, monkeypatch, tmp_path):
    def swap(*args):
        (forger.entry / "eval").rename(tmp_path / "outside")
        (forger.entry / "eval").symlink_to(tmp_path / "outside")

    monkeypatch.setattr("cembench.interop.submission.received._require_bounds", swap)
    with pytest.raises(CembenchError, match="cannot copy"):
        accept(forger.entry, protocols=[str(plan)])


def test_means_that_no_variance_measures():
    small, large = torch.arange(4.0), torch.tensor([0.0, 1e200]).double()
    assert _standard_errors(small, small + 9) > 4
    assert _standard_errors(large, -large) == math.inf
    assert _standard_errors(small, small * math.nan) == math.inf


def test_a_pickle_in_place_of_weights(forger, refused):
    torch.save({"x": 1}, forger.entry / "model.safetensors")
    forger.facts()
    assert "a pickle, which could run code" in refused(forger.entry)


def test_links_and_places_outside_the_entry(forger, refused, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    listed = json.loads((forger.entry / "entry.json").read_text())["files"]
    outside = {**listed, "../secret": "0" * 64, "/etc/passwd": "0" * 64}
    forger.facts(files=outside)
    assert "missing ../secret, /etc/passwd" in refused(forger.entry)
    forger.path.with_suffix(".parquet").unlink()
    forger.path.with_suffix(".parquet").symlink_to(secret)
    (forger.entry / "samples/more").symlink_to("/etc")
    reasons = refused(forger.entry)
    assert ".parquet (a link)" in reasons and "samples/more (a link)" in reasons
    if hasattr(os, "mkfifo"):
        os.mkfifo(forger.entry / "README.txt")
        assert "README.txt (no plain file)" in refused(forger.entry)


def test_bounds(honest, refused, forger):
    assert "size: expected 1,073 bytes at most" in refused(honest, most=1e-6)
    (forger.entry / "entry.json").write_text("[" * 10**6)
    assert "nested too deep" in refused(forger.entry)


@pytest.mark.parametrize("root", ["/etc", "."])
def test_folders_that_the_keeper_never_named(trained, forger, refused, tmp_path, root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"name": "folder", "root": root, "alias": "theirs"}

    def change(values):
        values["data"] = data

    forger.checkpoint(rewrite(trained, tmp_path / "other.safetensors", change), dataset="theirs")
    assert "which you never named" in refused(forger.entry)
    data["pseudo_labels"] = "/etc/labels.safetensors"
    forger.checkpoint(rewrite(trained, tmp_path / "other.safetensors", change), dataset="theirs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "labels come from /etc" in refused(forger.entry, data_root=str(tmp_path))
    assert (tmp_path / "cembench/data-roots").read_text() == f"{tmp_path}\n"


def test_where_decoded_images_are_kept_is_for_the_keeper_to_say(tmp_path):
    values = {"name": "folder", "root": "x", "memory_limit": 1e9, "store": "memory", "workers": 256}
    moved = _moved(datasets.parse(values), str(tmp_path))
    assert (moved.root, moved.memory_limit) == (str(tmp_path), 0.25)
    assert (moved.store, moved.workers) == ("auto", None)


def test_other_data_of_a_protocol(forger, refused):
    outside = ["noise", {"name": "folder", "root": "/etc", "alias": "x"}]
    values = {**forger.record.protocol, "density": {"outside": outside}}
    forger.write(protocol=values, protocol_digest=Protocol.parse(values).digest)
    assert "density" in refused(forger.entry)
    with pytest.raises(CembenchError, match=r"images lie in /etc.*which you never named"):
        verify_record(forger.path, forger.entry)


def test_networks_that_the_keeper_does_not_know(trained, forger, plan, tmp_path):
    """Their code is never run: `antigravity` would open a browser."""
    for model in ({"name": "factory", "target": "antigravity:x"}, {"name": "theirs", "k": 1}):

        def change(values, model=model):
            values["model"] = model

        file = rewrite(trained, tmp_path / "net.safetensors", change)
        forger.checkpoint(file)
        board = tmp_path / f"board-{model['name']}"
        verdict = accept(forger.entry, board, protocols=[str(plan)], seed=0)
        assert verdict.outcome == "accepted, not re-run", page_of(verdict)
        assert "antigravity" not in sys.modules
        assert "not re-run: its" in page_of(verdict) or "code outside" in page_of(verdict)
        mark = json.loads((board / "honest/accepted.json").read_text())
        assert mark["outcome"] == "not re-run" and mark["attacked"] == 0
    options = {"protocols": [str(plan)], "only_recounted": True}
    assert accept(forger.entry, **options).outcome == "refused"
    forger.write(survive(forger.table, forger.table.index[:40]))
    assert accept(forger.entry, protocols=[str(plan)]).outcome == "refused"
