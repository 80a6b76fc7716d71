"""Images that are decoded on the fly: the same batches for any number of workers; their ends."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cembench.data import datasets
from cembench.data.files.reader import content_of
from cembench.data.split import subset
from cembench.training.train import train
from cembench.util.errors import CembenchError
from tests.conftest import experiment

IMAGES = 24


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for row in range(IMAGES):
            folder = tmp_path / "data" / split / f"class{row % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            noise = random.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{row}.png")
    return tmp_path / "data"


def folder(root, **keys):
    return datasets.parse({"name": "folder", "root": str(root), "size": 8, **keys})


def test_batches_are_those_of_memory_for_any_number_of_workers(root):
    rows = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0)).split(5)
    memory = folder(root).load("train")
    state = torch.get_rng_state()
    for workers in (0, 2):
        split = folder(root, cache=False, workers=workers).load("train")
        found = list(split.store.batches(iter(rows)))
        assert all(map(torch.equal, found, memory.store.batches(iter(rows)))) and len(found) == 5
        assert torch.equal(split.batch(rows[0]), found[0]) and split.shape == memory.shape
        sent = pickle.loads(pickle.dumps(split.store.reader))  # as to workers that are not forked
        assert np.array_equal(sent.decode(content_of(sent.source, 5), 5), memory.batch()[5].numpy())
        part, chosen = subset(split, 7)
        assert torch.equal(torch.cat(list(part.batches(3))), memory.batch(chosen))
        assert part.fingerprint == memory.take(chosen).fingerprint
    assert torch.equal(torch.get_rng_state(), state)


def test_parquet_is_decoded_on_the_fly_too(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((root / "train").glob("*/*.png"))
    cells = [{"bytes": file.read_bytes(), "path": None} for file in files]
    labels = [int(file.parent.name[-1]) for file in files]
    pq.write_table(
        pa.table({"image": cells, "label": labels}), root / "train.parquet", row_group_size=5
    )
    keys = {"name": "parquet", "root": str(root), "size": 8}
    split = datasets.parse(keys | {"cache": False, "workers": 1}).load("train")
    rows = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))
    expected = folder(root).load("train").batch(rows)
    assert torch.equal(torch.cat(list(split.store.batches(rows.split(5)))), expected)
    assert torch.equal(split.batch(rows), expected)


def test_the_fingerprint_is_of_files_and_settings_and_is_remembered(root, monkeypatch):
    def print_of(**keys):
        return folder(root, cache=False, **keys).load("train").fingerprint

    first = print_of()
    assert first == print_of(workers=0) and first != folder(root).load("train").fingerprint
    assert len({first, print_of(mode="L"), print_of(interpolation="bilinear")}) == 3
    with monkeypatch.context() as patch:
        patch.setattr("cembench.data.store.encoded_fingerprint._read", None)
        assert print_of() == first  # no file was read
    changed = root / "train" / "class0" / "0.png"
    changed.write_bytes(changed.read_bytes() + b"!")
    assert print_of() != first


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_decoded_is_named_in_one_line(root, workers):
    split = folder(root, cache=False, workers=workers).load("train")
    (root / "train" / "class1" / "3.png").write_bytes(b"damaged")
    with pytest.raises(CembenchError, match=r"/3\.png: not a readable image") as error:
        list(split.batches(4))
    assert "\n" not in str(error.value)


def test_training_learns_the_same_weights_from_memory_and_on_the_fly(root, tmp_path):
    look = {"flip": True, "resized_crop": 0.2}
    method = {"name": "at", "negatives": {"steps": 1}}
    found = []
    for keys in ({}, {"cache": False, "workers": 0}, {"cache": False, "workers": 2}):
        data = folder(root, **look, **keys).dump() | keys
        settings = experiment(method=method, data=data, epochs=1, batch_size=8)
        found.append(load_file(train(settings, tmp_path / f"run{len(found)}")))
    first, *others = found
    for weights in others:
        assert all(torch.equal(value, weights[key]) for key, value in first.items())


CODE = """
import os, signal, sys, torch
from cembench.data import datasets
split = datasets.parse({"name": "folder", "root": sys.argv[1], "cache": False, "workers": 2,
                        "size": 8}).load("train")
batches = split.batches(1)
next(batches)
with open(f"/proc/self/task/{os.getpid()}/children") as file:
    workers = [int(number) for number in file.read().split()]
print(*workers, flush=True)
if sys.argv[2] == "worker":
    os.kill(workers[0], signal.SIGKILL)
    for _ in range(3): list(batches)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_killed_workers_are_told_in_one_line_and_those_of_a_killed_parent_end(root, victim):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CODE, str(root), victim]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    if victim == "worker":
        last = done.stderr.splitlines()[-1]
        assert "a process that decodes images was killed" in last and "data.workers" in last
    else:
        assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 60
    while any(map(is_alive, done.stdout.split())) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(map(is_alive, done.stdout.split()))


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
