"""Views: what may change depends on the kind of image."""

import pytest
import torch

from cembench.data.views import PRESETS, Views
from cembench.util.errors import ConfigError
from tests.conftest import images

SHAPES = {"grey-8": (1, 8, 8), "grey-28": (1, 28, 28), "colour-32": (3, 32, 32)}


@pytest.mark.parametrize("preset", PRESETS)
def test_two_views_differ_from_each_other_and_between_images(preset):
    shape = SHAPES[preset]
    x = torch.rand(1, *shape).repeat(6, 1, 1, 1)
    torch.manual_seed(0)
    first, second = Views(preset=preset).pair(x)
    assert first.shape == second.shape == x.shape
    assert first.min() >= 0 and first.max() <= 1
    assert not torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(first[0], first[1], atol=1e-3)
    torch.manual_seed(0)
    assert torch.equal(Views(preset=preset).pair(x)[0], first)


def test_the_preset_goes_by_channels_and_size():
    for preset, shape in SHAPES.items():
        assert Views().resolved(shape) == Views(preset=preset).resolved(shape)


def test_grey_images_are_never_mirrored_and_keep_their_colours():
    for preset in ("grey-8", "grey-28"):
        settings = Views(preset=preset).resolved(SHAPES[preset])
        assert not settings["mirror"] and not settings["colour"] and not settings["hue"]


def test_settings_given_replace_the_presets():
    still = Views(area=1.0, rotate=0.0, shift=0.0, light=0.0)
    x = images(4)
    assert all(torch.equal(view, x) for view in still.pair(x))
    mirrored = still.model_copy(update={"mirror": True})
    first, _ = mirrored.pair(images(64))
    same = (first == images(64)).flatten(1).all(1)
    flipped = (first == images(64).flip(-1)).flatten(1).all(1)
    assert bool((same | flipped).all()) and 10 < int(flipped.sum()) < 54


def test_colour_settings_move_colours_alone():
    x = torch.rand(8, 3, 16, 16)
    grey = Views(preset="colour-32", area=1.0, mirror=False, light=0.0, colour=0.0, grey=1.0)
    first, _ = grey.pair(x)
    assert torch.allclose(first[:, 0], first[:, 1]) and not torch.allclose(first, x)
    noisy = Views(area=1.0, rotate=0.0, shift=0.0, light=0.0, noise=0.1)
    moved = noisy.pair(torch.full((64, 1, 8, 8), 0.5))[0] - 0.5
    assert moved.std().item() == pytest.approx(0.1, rel=0.05)


def test_wrong_settings_are_named():
    for settings, message in (
        ({"areas": 1}, "did you mean 'area'"),
        ({"area": 0}, "greater than 0"),
        ({"preset": "gray-8"}, "grey-8"),
    ):
        with pytest.raises(ConfigError, match=message):
            Views.parse(settings)
