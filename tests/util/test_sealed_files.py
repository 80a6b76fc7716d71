"""Tensors and tables on disk: what was written comes back, and nothing else does."""

import hashlib
import random

import pandas as pd
import pytest
import torch
from safetensors.torch import save

from cembench.util.errors import CembenchError
from cembench.util.files import seal as seals
from cembench.util.files.parquet import read_table, write_table
from cembench.util.files.tensors import read_tensors, tensor_metadata, write_tensors

TENSORS = {"a": torch.arange(6).view(2, 3).T, "b": torch.ones(0, 4), "c": torch.ones(3).bfloat16()}
TABLE = pd.DataFrame({"index": [3, 1], "pgd_broken": [True, False], "logp": [0.1, float("nan")]})


@pytest.mark.parametrize("metadata", [None, {}, {"seconds": {"pgd": 0.5}, "seal": "mine"}])
def test_tensors_and_tables_come_back_with_their_metadata(tmp_path, metadata):
    path = tmp_path / "deep" / "x.safetensors"
    write_tensors(path, TENSORS, metadata, "x")
    found = read_tensors(path, "x")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    expected = metadata and {"seconds": {"pgd": 0.5}}
    assert tensor_metadata(path.read_bytes()) == expected
    write_table(tmp_path / "x.parquet", TABLE, metadata, "x")
    table = read_table(tmp_path / "x.parquet", "x")
    pd.testing.assert_frame_equal(table, TABLE)
    assert table.attrs == (expected or {})


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_tensors(tmp_path / name, TENSORS, {"a": 1, "b": 2})
        write_table(tmp_path / f"{name}.parquet", TABLE, {"a": 1, "b": 2})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@pytest.mark.parametrize("metadata", [None, {"a": 1}])
@pytest.mark.parametrize("kind", ["tensors", "table"])
def test_damage_and_mixed_up_files_are_one_line_that_names_the_file(tmp_path, kind, metadata):
    path, moment = tmp_path / "file", random.Random(0)
    if kind == "tensors":
        write_tensors(path, TENSORS, metadata, "name")
        read = read_tensors
    else:
        write_table(path, TABLE, metadata, "name")
        read = read_table
    content = path.read_bytes()
    wrong = [b"", content + b"\0", b"\xff" * 100, b"\x02" + 7 * b"\0" + b"[]"]
    for _ in range(60):
        place = moment.randrange(len(content))
        wrong += [content[:place]]
        wrong += [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]]
    for other in wrong:
        path.write_bytes(other)
        with pytest.raises(CembenchError, match=f"^{path}: damaged, or changed") as error:
            read(path, "name")
        assert "\n" not in str(error.value)
    path.write_bytes(content)
    with pytest.raises(CembenchError, match="damaged, or changed"):
        read(path, "another name")
    path.unlink()
    with pytest.raises(CembenchError, match="cannot read"):
        read(path, "name")


def test_files_from_before_seals_are_read_where_asked_for(tmp_path):
    path = tmp_path / "old.safetensors"
    path.write_bytes(save({"a": torch.ones(2)}))
    with pytest.raises(CembenchError, match="damaged"):
        read_tensors(path)
    assert torch.equal(read_tensors(path, legacy=True)["a"], torch.ones(2))
    write_tensors(path, {"a": torch.ones(2)}, {}, "name")
    with pytest.raises(CembenchError, match="damaged"):
        read_tensors(path, legacy=True)
    TABLE.to_parquet(tmp_path / "old.parquet", index=False)
    with pytest.raises(CembenchError, match="damaged"):
        read_table(tmp_path / "old.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "old.parquet", legacy=True), TABLE)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for write, values in ((write_tensors, TENSORS), (write_table, TABLE)):
        with pytest.raises(CembenchError, match=r"cannot write .*choose another folder"):
            write(tmp_path / "file" / "x", values)


@pytest.mark.parametrize("size", [1, 40, 70, 71, 72, 200])
def test_a_seal_is_found_wherever_parts_of_a_file_end(tmp_path, monkeypatch, size):
    monkeypatch.setattr(seals, "CHUNK", size)
    for before in (0, 1, 39, 70, 71, 150):
        content = before * b"x" + seals.UNSEALED.encode() + b"sha256:end" + seals.UNSEALED.encode()
        digits = hashlib.sha256(b"name\0" + content).hexdigest()
        expected = content.replace(64 * b"0", digits.encode(), 1)
        assert seals.seal(content, "name") == expected
        seals.write_sealed(tmp_path / "file", content, "name")
        assert (tmp_path / "file").read_bytes() == expected
        with seals.open_sealed(tmp_path / "file", "name") as file:
            assert file.read() == expected
        assert not seals.is_sealed(expected, "other") and not seals.is_sealed(expected[:-1], "name")
    assert not seals.is_sealed(b"") and not seals.is_sealed(size * b"sha256:")
