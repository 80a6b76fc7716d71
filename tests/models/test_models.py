"""Architectures: every one, with every activation and norm."""

import pytest
import torch

from cembench.models import models
from cembench.models.classifier import build_classifier, check_logits
from cembench.util.errors import CembenchError, ModelError

SMALL = {
    "small_cnn": {"width": 8},
    "resnet18": {"width": 8},
    "preact_resnet18": {"width": 8},
    "wide_resnet": {"depth": 10, "width": 1},
    "torchvision": {"arch": "squeezenet1_1"},
}
OWN = [name for name in SMALL if name != "torchvision"]


def build(name, shape=(3, 32, 32), classes=7, **options):
    return build_classifier(models.parse({"name": name, **SMALL[name], **options}), shape, classes)


def test_the_table_covers_every_model():
    elsewhere = {"factory", "timm", "robustbench"}  # tests/test_foreign.py
    assert set(SMALL) | elsewhere == set(models.names())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_model_maps_images_to_logits(name, channels):
    model = build(name, (channels, 32, 32)).eval()
    x = torch.rand(2, channels, 32, 32)
    assert model(x).shape == (2, 7)
    # Rows are independent in evaluation mode, which attacks on survivors rely on.
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-5)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("activation", ["relu", "silu", "softplus"])
def test_features_feed_the_head(name, norm, activation):
    model = build(name, (1, 8, 8), norm=norm, activation=activation).eval()
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(model.net.head(model.features(x)), model(x), atol=1e-6)
    assert any("running_mean" in key for key in model.state_dict()) == (norm == "batch")


def test_published_sizes():
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    resnet = build_classifier(models.parse("resnet18"), (3, 32, 32), 10)
    preact = build_classifier(models.parse("preact_resnet18"), (3, 32, 32), 10)
    wide = build_classifier(models.parse({"name": "wide_resnet"}), (3, 32, 32), 10)
    assert count(resnet) == 11_173_962 and count(preact) == 11_172_170
    assert count(wide) == 36_479_194


def test_normalisation_is_inside():
    settings = models.parse({"name": "small_cnn", "width": 8})
    torch.manual_seed(0)
    model = build_classifier(
        settings, (3, 8, 8), 4, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1, 2])
    ).eval()
    x = torch.rand(2, 3, 8, 8)
    by_hand = (x - torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / torch.tensor(
        [0.5, 1, 2]
    ).reshape(3, 1, 1)
    assert torch.allclose(model(x), model.net(by_hand))


def test_what_cannot_be_built_is_refused_by_name():
    with pytest.raises(ModelError, match=r"unknown 'resnet5'; did you mean 'resnet50'"):
        build("torchvision", arch="resnet5")
    with pytest.raises(ModelError, match="does not take"):
        build("torchvision", (3, 8, 8), arch="alexnet")
    with pytest.raises(ModelError, match="depth=11"):
        build("wide_resnet", depth=11)
    with pytest.raises(CembenchError, match="has no features"):
        build("torchvision", arch="vgg11", shape=(1, 32, 32)).features(torch.rand(1, 1, 32, 32))
    with pytest.raises(ModelError, match=r"returned \(2, 3\), expected 2×4"):
        check_logits(torch.zeros(2, 3), 2, 4)
