"""ImageNet and class folders, on made ones: layout, names, sizes, and folders that go astray."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from cembench.data import datasets
from cembench.util.errors import CembenchError

CRANES = ("n02012849", "n02123045", "n03126707")
NAMES = {"n02012849": ("crane",), "n02123045": ("tabby", "tabby cat"), "n03126707": ("crane",)}


@pytest.fixture
def root(tmp_path):
    random = np.random.default_rng(0)
    for split, image in (("train", "1.JPEG"), ("val", "ILSVRC2012_val_00000001.JPEG")):
        for wnid in CRANES:
            (tmp_path / split / wnid).mkdir(parents=True)
            noise = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            small = Image.fromarray(noise).resize((400, 300))
            small.convert("L" if wnid == CRANES[0] else "RGB").save(tmp_path / split / wnid / image)
    return tmp_path


def imagenet(root, **keys):
    return datasets.parse({"name": "imagenet", "root": str(root), "alias": "cranes", **keys})


def test_imagenet_is_evaluated_as_torchvision_evaluates_it(root):
    torch.save((NAMES, []), root / "meta.bin")
    data = imagenet(root)
    test = data.load("test")
    assert test.classes == ("crane (n02012849)", "tabby", "crane (n03126707)")
    assert test.labels.tolist() == [0, 1, 2] and test.shape == (3, 224, 224)
    transform = Compose([Resize(256), CenterCrop(224), PILToTensor()])
    for row, wnid in enumerate(CRANES):
        (file,) = (root / "val" / wnid).iterdir()
        assert torch.equal(test.batch()[row], transform(Image.open(file).convert("RGB")))
    assert data.threat.eps == 4 / 255 and data.flip and data.resized_crop == 0.08
    assert datasets.parse(data.dump()) == data


def test_imagenet_without_names_takes_wnids_and_a_part_of_it_needs_a_name(root):
    assert imagenet(root, size=16).load("train").classes == CRANES
    with pytest.raises(CembenchError, match=r"holds 3 of ImageNet's 1,000 classes; give data\.al"):
        imagenet(root, alias="imagenet").load("train")
    with pytest.raises(CembenchError, match="choose another"):
        imagenet(root, alias="cifar10")
    (root / "meta.bin").write_bytes(b"damaged")
    with pytest.raises(CembenchError, match=r"no class names from meta\.bin"):
        imagenet(root).load("train")


def test_val_is_the_test_split_of_a_folder_without_one(root):
    data = datasets.parse({"name": "folder", "root": str(root), "mode": "RGB", "size": 8})
    assert len(data.load("test")) == 3
    (root / "test").mkdir()
    with pytest.raises(CembenchError, match="no class folders"):
        data.load("test")


def test_folders_within_class_folders(root):
    data = datasets.parse({"name": "folder", "root": str(root), "mode": "RGB", "size": 8})
    (root / "val" / CRANES[0]).rename(root / "val" / CRANES[1] / "a.JPEG")
    (root / "val" / CRANES[2] / "linked").symlink_to(root / "val" / CRANES[1])
    assert data.load("test").labels.tolist() == [1, 1, 2, 2, 2]
    (root / "val" / CRANES[1] / "back").symlink_to(root / "val" / CRANES[2])
    with pytest.raises(CembenchError, match="is a link to a folder that it is in"):
        data.load("test")
    (root / "val" / CRANES[1] / "back").unlink()
    (root / "val" / CRANES[1] / "none.png").symlink_to("nowhere")
    with pytest.raises(CembenchError, match=r"none\.png cannot be read: No such file"):
        data.load("test")
