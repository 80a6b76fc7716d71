"""Prepared data: the same images as in memory, and what may happen while they are prepared."""

import io
import math
import os
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder

from cembench.data import datasets
from cembench.data.files import prepared
from cembench.data.files.decode import Decoder
from cembench.data.files.source import Source
from cembench.data.split import hold_out
from cembench.data.statistics import pixel_statistics
from cembench.data.store import prepare
from cembench.data.store.disk import DiskStore
from cembench.training.train import train
from cembench.util.errors import CembenchError
from tests.conftest import experiment
from tests.support.forks import Blow, Fork, Process

COUNT = 23
IN_SHARD = 5


def noise(seed, size=(8, 8)):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


CONTENTS = [noise(seed) for seed in range(COUNT)]


def write_folder(root, contents):
    for split in ("train", "test"):
        for index, content in enumerate(contents):
            file = root / split / f"class{index % 2}" / f"{index:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def write_parquet(root, contents, rows_in_group=4):
    root.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": content, "path": None} for content in contents]
    table = pa.table({"img": cells, "label": [index % 2 for index in range(len(cells))]})
    cut = len(table) // 3
    for name, part in (("train-0", table[:cut]), ("train-1", table[cut:]), ("test", table)):
        pq.write_table(part, root / f"{name}.parquet", row_group_size=rows_in_group)


WRITERS = {"folder": write_folder, "parquet": write_parquet}


@pytest.fixture(params=["folder", "parquet"])
def kind(request):
    return request.param


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, and small shards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(prepared, "SHARD_BYTES", IN_SHARD * 3 * 64)
    return tmp_path / "cache" / "cembench" / "prepared"


@pytest.fixture
def root(kind, cache, tmp_path):
    WRITERS[kind](tmp_path / "mine", CONTENTS)
    return tmp_path / "mine"


def opened(kind, root, store="disk", split="train", **settings):
    return datasets.parse({"name": kind, "root": str(root), "store": store, **settings}).load(split)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def decoded(monkeypatch):
    """The names of the images that are decoded in this process."""
    names, decode = [], Decoder.decode

    def counted(self, content, name):
        names.append(name)
        return decode(self, content, name)

    monkeypatch.setattr(Decoder, "decode", counted)
    return names


def test_both_stores_return_the_same_images(kind, root, cache):
    memory, disk = (opened(kind, root, store) for store in ("memory", "disk"))
    assert isinstance(disk.store, DiskStore) and disk.shape == memory.shape == (3, 8, 8)
    assert len(list(next(cache.iterdir()).glob("*.u8"))) == math.ceil(COUNT / IN_SHARD)
    for rows in ([22, 0, 4, 5, 5, 3, 21, 6], list(range(COUNT)), [], [7]):
        rows = torch.tensor(rows, dtype=torch.int64)
        assert torch.equal(disk.batch(rows), memory.batch(rows))
    assert torch.equal(torch.cat([*disk.batches(4)]), memory.batch())
    assert torch.equal(disk.pixels(slice(3, 9)), memory.pixels(slice(3, 9)))
    assert disk.fingerprint == memory.fingerprint
    assert disk.classes == memory.classes and torch.equal(disk.labels, memory.labels)
    for ours, theirs in zip(pixel_statistics(disk), pixel_statistics(memory), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(hold_out(disk, 0.3), hold_out(memory, 0.3), strict=True):
        assert ours.fingerprint == theirs.fingerprint


def test_the_images_themselves_are_what_the_fingerprint_says(kind, root):
    disk = opened(kind, root)
    assert disk.known and disk.take(torch.arange(COUNT)).fingerprint == disk.known


def test_a_store_can_be_sent_to_another_process(kind, root):
    split = opened(kind, root)
    assert torch.equal(pickle.loads(pickle.dumps(split)).batch(), split.batch())


def test_auto_goes_by_the_bytes_of_decoded_images(kind, root, cache):
    bytes_ = COUNT * 3 * 64
    assert not isinstance(opened(kind, root, "auto").store, DiskStore)
    limits = {bytes_: False, bytes_ - 1: True}
    for limit, on_disk in limits.items():
        split = opened(kind, root, "auto", memory_limit=limit / 2**30)
        assert isinstance(split.store, DiskStore) == on_disk


def test_where_images_are_kept_does_not_identify_a_run(kind, root):
    settings = {"name": kind, "root": str(root)}
    kept = datasets.parse({**settings, "store": "disk", "memory_limit": 2.5})
    assert kept.dump() == datasets.parse(settings).dump()


def test_images_are_decoded_once(kind, root, decoded):
    opened(kind, root)
    assert len(set(decoded)) == COUNT
    decoded.clear()
    opened(kind, root)
    assert not decoded


def test_other_settings_and_changed_files_have_a_cache_of_their_own(kind, root, cache, decoded):
    def keys(**settings):
        decoded.clear()
        opened(kind, root, **settings)
        return {path.name for path in cache.iterdir()}, len(decoded) > 0

    whole = keys()[0]
    assert keys() == (whole, False)
    found = [keys(mode="L"), keys(size=4), keys(size=8)]
    file = next(path for path in sorted(root.rglob("*")) if path.is_file() and "train" in str(path))
    os.utime(file, ns=(0, 1))
    found.append(keys())
    file.rename(file.with_stem(f"{file.stem}b"))
    found.append(keys())
    assert [made for _, made in found] == [True] * 5
    assert len(found[-1][0]) == len(whole) + 5


def test_class_names_and_labels_are_part_of_the_key(cache, tmp_path):
    write_parquet(tmp_path / "mine", CONTENTS)
    first = opened("parquet", tmp_path / "mine", classes=["a", "b"])
    other = opened("parquet", tmp_path / "mine", classes=["a", "c"])
    assert first.fingerprint != other.fingerprint and len([*cache.iterdir()]) == 2


def test_data_that_was_moved_is_not_decoded_again(kind, root, cache, decoded):
    opened(kind, root)
    decoded.clear()
    root.rename(root.with_name("moved"))
    opened(kind, root.with_name("moved"))
    assert len([*cache.iterdir()]) == 1 and not decoded


@pytest.mark.parametrize("shard", range(math.ceil(COUNT / IN_SHARD)))
def test_what_was_finished_before_an_error_is_kept(root, kind, cache, monkeypatch, decoded, shard):
    wanted = opened(kind, root, "memory").fingerprint
    real, write = prepare.replacing, shard

    def failing(path):
        if path.name == f"{write:05}.u8":
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(prepare, "replacing", failing)
    with pytest.raises(KeyboardInterrupt):
        opened(kind, root)
    monkeypatch.setattr(prepare, "replacing", real)
    decoded.clear()
    split = opened(kind, root)
    assert split.fingerprint == wanted == split.take(torch.arange(COUNT)).fingerprint
    rest = COUNT - shard * IN_SHARD
    assert rest <= len(set(decoded)) <= rest + 1  # and the first, for its shape


def test_kills_cost_no_more_than_a_shard(cache, tmp_path, cembench):
    write_parquet(tmp_path / "mine", CONTENTS[:11])
    command = ("data", "prepare", "parquet", f"root={tmp_path / 'mine'}", "store=disk")
    assert cembench(*command).code == 0
    wanted = {path.name: contents(path) for path in cache.iterdir()}
    shutil.rmtree(cache)
    codes = []
    for at in (1, 2, 3, 5, 7, 9, 12, 15, 1000):
        blow = Blow(cache, at)
        codes.append(Process(*command, errors=tmp_path / "errors", blow=blow).wait())
    assert codes[0] == -9 and codes[-1] == 0
    assert {path.name: contents(path) for path in cache.iterdir()} == wanted


def test_two_processes_decode_every_image_once(kind, root, cache, decoded, tmp_path):
    def work():
        return opened(kind, root).fingerprint, len(decoded)

    forks = [Fork(work, tmp_path / f"result{number}") for number in range(2)]
    (first, mine), (second, other) = (fork.result() for fork in forks)
    assert first == second == opened(kind, root, "memory").fingerprint
    assert mine + other == COUNT + 1  # the first one twice, for the shape of all
    assert len([*cache.iterdir()]) == 1


@pytest.mark.parametrize("noticed", ["at once", "while writing"])
def test_a_full_disk_costs_nothing_that_was_there(tmp_path, monkeypatch, disk, cembench, noticed):
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk.folder / "cache"))
    for name, images in (("first", CONTENTS), ("second", CONTENTS[:9])):
        write_folder(tmp_path / name, images)
    first = opened("folder", tmp_path / "first")
    disk.fill()
    free = {"at once": 0, "while writing": math.inf}[noticed]
    monkeypatch.setattr(prepare, "_free", lambda folder: free)
    done = cembench("data", "prepare", "folder", f"root={tmp_path / 'second'}", "store=disk")
    assert done.code == 2 and "free some space" in done.err and len(done.err.splitlines()) == 1
    assert not [*disk.folder.rglob("*.tmp")] and not [*disk.folder.rglob("*.lock")]
    assert opened("folder", tmp_path / "first").fingerprint == first.fingerprint
    disk.free()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk.folder / "cache"))
    assert opened("folder", tmp_path / "first").take(torch.arange(COUNT)).fingerprint == first.known
    assert len(opened("folder", tmp_path / "second")) == 9


def test_an_image_that_cannot_be_read_is_named_and_the_rest_stays(cache, tmp_path):
    write_folder(tmp_path / "mine", CONTENTS)
    broken = tmp_path / "mine/train/class1/00021.png"
    broken.write_bytes(b"nonsense")
    with pytest.raises(CembenchError, match=r"00021\.png: not a readable image"):
        opened("folder", tmp_path / "mine")
    (folder,) = cache.iterdir()
    assert {"00000.u8", "00001.u8"} < {*contents(folder)}
    broken.unlink()
    assert len(opened("folder", tmp_path / "mine")) == COUNT - 1


def test_files_that_change_meanwhile_are_not_mixed(kind, root, monkeypatch):
    stamps = iter(["first", "first", "second"])
    monkeypatch.setattr(Source, "stamp", lambda self: next(stamps))
    with pytest.raises(CembenchError, match="files changed while they were read; start again"):
        opened(kind, root)


def test_damaged_shards_are_named_and_mended(kind, root, cache, cembench):
    command = ("data", "prepare", kind, f"root={root}", "store=disk")
    said = cembench(*command).out
    folder = Path(next(line.strip() for line in said.splitlines() if str(cache) in line))
    shard, whole = folder / "00001.u8", contents(folder)
    for content in (whole[shard.name][:-1], None):
        shard.unlink() if content is None else shard.write_bytes(content)
        done = cembench(*command)
        assert done.out == said and f"{shard} is damaged" in done.err
        assert contents(folder) == whole
    index = folder / "index.json"
    index.write_bytes(index.read_bytes().replace(b"8", b"9"))
    assert cembench(*command).out == said and contents(folder) == whole
    flipped = bytes([whole[shard.name][0] ^ 1]) + whole[shard.name][1:]
    shard.write_bytes(flipped)
    assert cembench(*command).out == said and shard.read_bytes() == flipped
    verified = cembench(*command, "--verify")
    assert verified.out == said and f"{shard} is damaged" in verified.err
    assert contents(folder) == whole


def test_a_shard_that_is_cut_while_it_is_in_use_is_named(kind, root, cache):
    split = opened(kind, root)
    shard = sorted(cache.rglob("*.u8"))[-1]
    shard.write_bytes(b"")
    with pytest.raises(CembenchError, match=f"{shard.name}: cut short"):
        split.batch()


def test_what_is_prepared_can_be_listed_and_removed(kind, root, cache, cembench):
    assert "nothing is prepared" in cembench("data", "list").out
    opened(kind, root)
    opened(kind, root, size=4)
    head, *lines = cembench("data", "list").out.splitlines()
    assert head.startswith("key") and len(lines) == 2
    assert all(f"{root}, train split" in line for line in lines)
    key = lines[0].split()[0]
    assert cembench("data", "remove", key).out.startswith(f"removed {key}")
    assert key not in cembench("data", "list").out
    assert cembench("data", "remove", key).code == 2
    assert cembench("data", "remove", "all").code == 0 and not [*cache.iterdir()]


def test_the_data_of_a_config_is_prepared(kind, root, cembench, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(f"data: {{name: {kind}, root: {root}, size: 4}}\nmodel: small_cnn\n")
    done = cembench("data", "prepare", config, "store=disk")
    assert done.code == 0 and f"train split: {COUNT} images of 3×4×4" in done.out
    small = cembench("data", "prepare", "digits")
    assert "1,200 images of 1×8×8" in small.out and "in memory" in small.out
    for wrong, message in (
        (["cifar11"], "no data set, recipe or file 'cifar11'; did you mean 'cifar1"),
        (["folder"], "folder: root: required"),
        (["folder", "rot=x"], "rot: unknown key"),
        (["folder", "x"], "x: one argument too many"),
        ([], "name a data set"),
    ):
        refused = cembench("data", "prepare", *wrong)
        assert refused.code == 2 and message in refused.err


def test_folders_are_read_in_the_order_of_torchvision(tmp_path):
    names = ["b/2.PNG", "b/10.png", "a/x/1.jpeg", "a/y.webp", "a/x.txt", "Z/é.png", "Z/e.tif"]
    for name in names:
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).touch()
    source = datasets.parse({"name": "folder", "root": str(tmp_path)}).source(tmp_path, "train")
    theirs = ImageFolder(tmp_path / "train")
    ours = [(source.name(row), int(label)) for row, label in enumerate(source.labels)]
    assert ours == theirs.samples and [*source.classes] == theirs.classes


def test_parquet_names_the_row_in_its_file_and_reads_in_any_order(tmp_path):
    write_parquet(tmp_path, CONTENTS)
    source = datasets.parse({"name": "parquet", "root": str(tmp_path)}).source(tmp_path, "train")
    assert source.name(6) == "train-0.parquet row 6" and source.name(7) == "train-1.parquet row 0"
    for row in (0, 22, 9, 8, 9, 3, 21):
        assert source.read(row) == CONTENTS[row]
    assert pickle.loads(pickle.dumps(source)).read(11) == CONTENTS[11]


def test_training_gives_the_same_weights_from_both_stores(cache, tmp_path):
    write_folder(tmp_path / "mine", CONTENTS)
    weights = []
    for store in ("memory", "disk"):
        data = {"name": "folder", "root": str(tmp_path / "mine"), "store": store, "flip": True}
        settings = experiment(data=data, epochs=1, batch_size=8)
        train(settings, tmp_path / store)
        weights.append(load_file(tmp_path / store / "model.safetensors"))
    assert (tmp_path / "memory/config.yaml").read_bytes() == (
        tmp_path / "disk/config.yaml"
    ).read_bytes()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch, kind):
    """20,000 images of 96×96, 553 MB decoded, in a process that may take 150 MB more."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    WRITERS[kind](tmp_path / "mine", [noise(s % 7, (8, 8)) for s in range(20_000)])

    def total(images):
        return int(images[:, :, ::8, ::8].sum())  # of whole numbers, in eight times the bytes

    def bounded(store):
        def work():
            used = int(Path("/proc/self/statm").read_text().split()[5]) * 4096
            resource.setrlimit(resource.RLIMIT_DATA, (used + 150 * 2**20,) * 2)
            split = opened(kind, tmp_path / "mine", store, size=96)
            parts = torch.randperm(len(split)).split(128)
            return [
                sum(map(total, batches)) for batches in (split.batches(), map(split.batch, parts))
            ]

        return Fork(work, tmp_path / store)

    in_order, shuffled = bounded("disk").result()
    assert in_order == shuffled
    assert bounded("memory").wait() != 0
