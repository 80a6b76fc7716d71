"""Data sets: real and made ones, what is refused, and augmentation."""

import gzip
import io
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop as crop_and_resize

from cembench.data import datasets
from cembench.data.augment import augment, autoaugmented, cut_out, random_boxes, resized_crop
from cembench.data.split import Split, hold_out, subset
from cembench.util.errors import CembenchError
from cembench.util.rng import SharedGenerator, generator_of

EMPTY = pa.table(
    {
        "img": pa.array([], pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "label": pa.array([], pa.int64()),
    }
)


def picture(size=(8, 8), value=0, mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(stream, "png")
    return stream.getvalue()


def write_parquet(path, contents, labels, names=None):
    cells = [{"bytes": content, "path": None} for content in contents]
    table = pa.table({"img": cells, "label": labels})
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)


def write_folder(root, sizes=((8, 8),) * 4):
    for split in ("train", "test"):
        for index, size in enumerate(sizes):
            folder = root / split / f"class{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index}.png").write_bytes(picture(size, value=10 * index))


def test_digits_are_the_whole_of_the_real_scans_split_once():
    train, test = (datasets.parse("digits").load(split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1200, 597) and train.shape == (1, 8, 8)
    pixels = train.pixels()
    assert pixels.max() == 1 and pixels.min() == 0 and train.levels == 16
    rows = {image.numpy().tobytes() for image in train.batch()}
    assert sum(image.numpy().tobytes() in rows for image in test.batch()) < 3
    assert test.fingerprint == datasets.parse("digits").load("test").fingerprint
    assert test.fingerprint != train.fingerprint


def test_hold_out_and_subset_are_fixed_and_disjoint():
    split = datasets.parse("digits").load("train")
    rest, held = hold_out(split, 0.1)
    assert len(held) == 120 and len(rest) == 1080
    assert hold_out(split, 0.1)[1].fingerprint == held.fingerprint
    part, rows = subset(split, 50)
    assert torch.equal(part.labels, split.labels[rows]) and len(rows.unique()) == 50
    assert len(part.labels.unique()) == 10
    assert subset(split, None)[0].fingerprint == split.fingerprint
    with pytest.raises(CembenchError, match=r"validation\.fraction"):
        hold_out(split.take(torch.arange(3)), 0.01)


def test_parquet_reads_the_hub_layout(tmp_path):
    write_parquet(
        tmp_path / "train-0.parquet", [picture(value=v) for v in (1, 2)], [0, 1], ["a", "b"]
    )
    write_parquet(tmp_path / "test-0.parquet", [picture(value=200)], [1], ["a", "b"])
    data = datasets.parse({"name": "parquet", "root": str(tmp_path), "alias": "mine"})
    test = data.load("test")
    assert test.classes == ("a", "b") and test.shape == (3, 8, 8) and data.title == "mine"
    assert test.batch()[0, :, 0, 0].tolist() == [200, 0, 255]
    assert len(data.load("train")) == 2


def test_parquet_without_names_counts_classes_in_the_training_split(tmp_path):
    write_parquet(tmp_path / "train.parquet", [picture()] * 3, [0, 1, 2])
    write_parquet(tmp_path / "test.parquet", [picture()], [0])
    data = datasets.parse({"name": "parquet", "root": str(tmp_path)})
    assert data.load("test").classes == ("0", "1", "2") and data.title == tmp_path.name


def test_folder_reads_classes_in_order(tmp_path):
    write_folder(tmp_path)
    data = datasets.parse({"name": "folder", "root": str(tmp_path), "mode": "L"})
    assert data.load("train").classes == ("class0", "class1")
    assert data.load("test").shape == (1, 8, 8)
    (tmp_path / "test" / "class0" / "0.png").unlink()
    (tmp_path / "test" / "class0" / "2.png").unlink()
    (tmp_path / "test" / "class0").rmdir()
    assert data.load("test").labels.tolist() == [1, 1]


def test_size_brings_images_to_one_size(tmp_path):
    write_folder(tmp_path, ((8, 8), (12, 9), (5, 30), (16, 16)))
    wild = datasets.parse({"name": "folder", "root": str(tmp_path)})
    with pytest.raises(CembenchError, match=r"8×8.*set data\.size"):
        wild.load("train")
    sized = datasets.parse({"name": "folder", "root": str(tmp_path), "size": 7})
    assert sized.load("train").shape == (3, 7, 7)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: write_parquet(p, [b"nonsense"], [0]), "row 0: not a readable image"),
        (lambda p: write_parquet(p, [picture()[:45]], [0]), "row 0: not a readable image"),
        (lambda p: write_parquet(p, [None], [0]), "row 0: not a readable image"),
        (lambda p: write_parquet(p, [picture(), picture((9, 8))], [0, 0]), "row 1 has 9×8"),
        (lambda p: write_parquet(p, [picture()], [-1]), "labels that are not"),
        (lambda p: write_parquet(p, [picture()], ["cat"]), "labels that are not"),
        (
            lambda p: write_parquet(p, [picture()], [5], ["a", "b"]),
            "label 5 is outside the 2 classes",
        ),
        (lambda p: pq.write_table(EMPTY, p), "holds no images"),
        (lambda p: pq.write_table(pa.table({"image": ["a.png"], "label": [0]}), p), "row 0: not a"),
        (lambda p: write_parquet(p, [picture()], [0]), "1 class; a classifier needs two"),
        (lambda p: p.write_bytes(b"PAR1 cut"), "unreadable parquet"),
        (lambda p: pq.write_table(pa.table({"x": [1]}), p), "no column 'image'"),
        (lambda p: None, r"no files train\*"),
    ],
)
def test_spoiled_parquet_is_refused_by_name(tmp_path, spoil, message):
    spoil(tmp_path / "train.parquet")
    with pytest.raises(CembenchError, match=message) as error:
        datasets.parse({"name": "parquet", "root": str(tmp_path)}).load("train")
    assert str(tmp_path) in str(error.value)


def test_spoiled_folders_are_refused_by_name(tmp_path):
    data = datasets.parse({"name": "folder", "root": str(tmp_path)})
    with pytest.raises(CembenchError, match=str(tmp_path)):
        data.load("train")
    write_folder(tmp_path)
    (tmp_path / "test" / "zebra").mkdir()
    (tmp_path / "test" / "zebra" / "1.png").write_bytes(picture())
    with pytest.raises(CembenchError, match="'zebra' is not among the training classes"):
        data.load("test")
    (tmp_path / "train" / "class0" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(CembenchError, match=r"0\.png: not a readable image"):
        data.load("train")
    Image.new("I;16", (8, 8)).save(tmp_path / "train" / "class0" / "0.png")
    with pytest.raises(CembenchError, match="more than 8 bits"):
        data.load("train")
    with pytest.raises(CembenchError, match=r"data\.root: no folder"):
        datasets.parse({"name": "folder", "root": str(tmp_path / "none")}).load("train")


def test_a_title_is_fixed_in_the_config_and_cannot_pass_for_another_or_leave_the_folder(tmp_path):
    for wrong in ("cifar10", "../up", ""):
        with pytest.raises(CembenchError, match="alias"):
            datasets.parse({"name": "folder", "root": str(tmp_path), "alias": wrong})
    with pytest.raises(CembenchError, match="choose another"):
        datasets.parse({"name": "parquet", "root": str(tmp_path / "digits")})
    data = datasets.parse({"name": "folder", "root": str(tmp_path / "my data")})
    assert data.title == "my-data" and datasets.parse(data.dump()) == data


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
def test_missing_torchvision_data_names_the_remedy(tmp_path, name):
    with pytest.raises(CembenchError, match=r"missing or damaged under .*data\.root"):
        datasets.parse({"name": name, "root": str(tmp_path)}).load("test")


def test_idx_files_read_as_torchvision_reads_them(tmp_path):
    """Fashion-MNIST's format, made here; Debian ships the real files gzipped."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    for stem in ("train", "t10k"):
        header = struct.pack(">IIII", 0x803, 2, 28, 28)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 2) + b"\x03\x09")
    test = datasets.parse({"name": "fashion-mnist", "root": str(tmp_path)}).load("test")
    assert np.array_equal(test.batch()[:, 0].numpy(), pixels) and test.labels.tolist() == [3, 9]
    assert test.classes[9] == "Ankle boot"
    for content in (b"", b"garbage", (raw / "t10k-images-idx3-ubyte").read_bytes()[:99]):
        (raw / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(CembenchError, match=r"missing or damaged under .*data\.root"):
            datasets.parse({"name": "fashion-mnist", "root": str(tmp_path)}).load("train")
    gzipped = raw / "t10k-images-idx3-ubyte"
    (raw / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(gzipped.read_bytes()))
    gzipped.unlink()
    with pytest.raises(CembenchError, match=r"data\.root"):
        datasets.parse({"name": "fashion-mnist", "root": str(tmp_path)}).load("test")


def test_splits_check_themselves():
    with pytest.raises(CembenchError, match="label 3 is outside the 2 classes"):
        Split.of(torch.zeros(1, 1, 2, 2).byte(), torch.tensor([3]), ("a", "b"))
    with pytest.raises(CembenchError, match="0 images"):
        Split.of(torch.zeros(0, 1, 2, 2).byte(), torch.tensor([]).long(), ("a", "b"))


def test_augmentation_moves_whole_images_and_repeats():
    images = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).expand(200, 2, 8, 8)
    moved = augment(images, 2, True, generator_of(0, "cpu"))
    assert torch.equal(moved, augment(images, 2, True, generator_of(0, "cpu")))
    padded = torch.nn.functional.pad(images[0], (2, 2, 2, 2))
    windows = {
        (flipped, top, left): (padded.flip(-1) if flipped else padded)[
            :, top : top + 8, left : left + 8
        ]
        for flipped in (False, True)
        for top in range(5)
        for left in range(5)
    }
    hits = {key for image in moved for key, window in windows.items() if torch.equal(image, window)}
    found = [any(torch.equal(image, window) for window in windows.values()) for image in moved]
    assert all(found) and len(hits) > 40
    assert torch.equal(augment(images, 0, False, generator_of(0, "cpu")), images)


def test_cutout_is_one_square_whose_middle_may_be_anywhere():
    images = torch.full((400, 1, 9, 12), 7)
    holes = (cut_out(images, 4, generator_of(0, "cpu")) == 0)[:, 0]
    rows, columns = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(rows * columns, holes.sum((1, 2)))
    assert {*rows.tolist()} == {*columns.tolist()} == {2, 3, 4}
    assert holes.any(0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_autoaugment_of_an_image_does_not_depend_on_who_takes_it(channels):
    images = torch.randint(0, 256, (12, channels, 32, 32), dtype=torch.uint8)
    state = torch.get_rng_state()
    whole = autoaugmented(images, SharedGenerator.of(0, torch.device("cpu"), 0, 1))
    halves = [SharedGenerator.of(0, torch.device("cpu"), rank, 2) for rank in (0, 1)]
    pairs = zip(images.chunk(2), halves, strict=True)
    assert torch.equal(torch.cat([autoaugmented(*pair) for pair in pairs]), whole)
    assert whole.dtype == torch.uint8 and not torch.equal(whole, images)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (40, 1, 20, 28), (40, 2, 9, 60)])
def test_resized_crops_are_those_of_torchvision(shape):
    generator = generator_of(0, "cpu")
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    boxes = random_boxes(images, 0.08, generator)
    found = resized_crop(images.float(), boxes)
    for image, box, crop in zip(images, boxes.tolist(), found, strict=True):
        assert torch.allclose(crop, crop_and_resize(image.float(), *box, shape[2:]), atol=0.01)
    assert torch.equal(resized_crop(images, boxes), found.round().byte())
    top, left, height, width = boxes.T
    assert boxes.min() >= 0 and (top + height).max() <= shape[2]
    assert (left + width).max() <= shape[3] and len(boxes.unique(dim=0)) > 35
    whole = torch.tensor([[0, 0, *shape[2:]]]).expand(len(images), -1)
    assert torch.equal(resized_crop(images, whole), images)


def test_boxes_have_the_areas_and_shapes_of_torchvision():
    images = torch.empty(4000, 1, 100, 100)
    boxes = random_boxes(images, 0.2, generator_of(0, "cpu")).double()
    torch.manual_seed(0)
    scale, ratio = [0.2, 1.0], [3 / 4, 4 / 3]
    drawn = [RandomResizedCrop.get_params(images[0], scale, ratio) for _ in range(4000)]
    for ours, theirs in zip(boxes.T, torch.tensor(drawn).double().T, strict=True):
        for part in (0.1, 0.5, 0.9):
            assert abs(ours.quantile(part) - theirs.quantile(part)) <= 2
    area = boxes[:, 2] * boxes[:, 3] / 100**2
    assert area.min() > 0.19 and area.max() <= 1


def test_resized_crops_are_a_setting_and_repeat_in_several_processes():
    with pytest.raises(CembenchError, match="resized_crop: crops in another way; set crop to 0"):
        datasets.parse({"name": "cifar10", "resized_crop": 0.1})
    data = datasets.parse({"name": "cifar10", "crop": 0, "resized_crop": 0.1})
    assert data.resized_crop == 0.1 and "resized_crop" not in datasets.parse("cifar10").dump()
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    whole = augment(images, 0, True, SharedGenerator.of(0, torch.device("cpu"), 0, 1), 0.1)
    halves = [SharedGenerator.of(0, torch.device("cpu"), rank, 2) for rank in (0, 1)]
    shares = [
        augment(part, 0, True, generator, 0.1)
        for part, generator in zip(images.chunk(2), halves, strict=True)
    ]
    assert torch.equal(torch.cat(shares), whole) and not torch.equal(whole, images)
