"""Safetensors files that are written and read part by part."""

import json

import pytest
import torch
from safetensors.torch import save

from cembench.util.errors import CembenchError
from cembench.util.files.seal import UNSEALED, seal
from cembench.util.files.tensors import Parts, open_tensors, read_tensors, write_tensors

VALUES = {
    "b": torch.arange(12).reshape(3, 4),
    "a": torch.rand(5, 2),
    "half": torch.rand(3).bfloat16(),
    "flags": torch.tensor([True, False]),
    "one": torch.tensor(7),
    "none": torch.zeros(0, 3, dtype=torch.uint8),
}


@pytest.mark.parametrize("metadata", [None, {"é": 1}])
def test_a_file_is_what_safetensors_writes_with_a_seal(tmp_path, metadata):
    write_tensors(tmp_path / "x", VALUES, metadata, "name")
    entries = {"seal": UNSEALED}
    if metadata:
        entries = {"cembench": json.dumps({**metadata, "seal": UNSEALED})}
    assert (tmp_path / "x").read_bytes() == seal(save(VALUES, entries), "name")
    found = read_tensors(tmp_path / "x", "name")
    assert all(torch.equal(found[key], value) for key, value in VALUES.items())


def test_parts_make_the_file_of_the_whole_and_slices_of_it_are_read(tmp_path):
    whole = torch.rand(10, 3)
    write_tensors(tmp_path / "whole", {"x": whole})
    write_tensors(tmp_path / "parts", {"x": Parts("float32", (10, 3), iter(whole.split(4)))})
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    with open_tensors(tmp_path / "parts") as file:
        assert torch.equal(file.get_slice("x")[3:7], whole[3:7])


@pytest.mark.parametrize("legacy", [True, False])
def test_a_damaged_file_is_not_opened(tmp_path, legacy):
    write_tensors(tmp_path / "x", {"x": torch.rand(9)}, {})
    content = bytearray((tmp_path / "x").read_bytes())
    for damaged in (content[:-1], content[:4], b"", content[:-2] + b"xy"):
        (tmp_path / "x").write_bytes(damaged)
        with (
            pytest.raises(CembenchError, match="damaged"),
            open_tensors(tmp_path / "x", legacy=legacy),
        ):
            pass
    with pytest.raises(CembenchError, match="cannot read"), open_tensors(tmp_path / "none"):
        pass
