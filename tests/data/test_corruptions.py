"""Common corruptions: those of the library at equal random numbers, and of each image alone."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from PIL import Image

import cembench as cb
from cembench.data import corruptions
from cembench.data.corruptions import CIFAR, COMMON, IMAGENET, NAMES, blur, weather
from cembench.data.corruptions.apply import corrupt, function_of
from cembench.util.errors import CembenchError

LEVELS = {  # by how many levels of 255 a corruption may differ from the library's
    "defocus_blur": 1,  # OpenCV convolves by a Fourier transform
    "motion_blur": 1,  # ours rounds, as ImageMagick does
    "snow": 2,  # our flakes are in 8 bits before they are smeared, too, as the published ones
    "frost": 8,  # Pillow decodes JPEG otherwise than OpenCV
    **dict.fromkeys(["zoom_blur", "fog", "brightness", "saturate", "spatter"], 1),
}
HERE = [name for name in NAMES if name not in corruptions.without_extra()]


@pytest.fixture(scope="module")
def library():
    """The package imagecorruptions, which was written for earlier versions of what it imports."""
    pytest.importorskip("skimage")
    cv2 = pytest.importorskip("cv2")
    found = importlib.util.find_spec("imagecorruptions")
    if found is None:
        pytest.skip("imagecorruptions is not installed")
    folder = Path(found.submodule_search_locations[0])
    stand_in = ModuleType("pkg_resources")
    stand_in.resource_filename = lambda _, name: str(folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pkg_resources", stand_in)
        patch.setattr(np, "float_", np.float64, raising=False)
        made = pytest.importorskip("imagecorruptions.corruptions", exc_type=ImportError)
        smooth, zoom, noisy = made.gaussian, made.clipped_zoom, made.sk.util.random_noise

        def gaussian(x, sigma, multichannel=False, **options):
            return smooth(x, sigma, channel_axis=-1 if multichannel else None, **options)

        def centred(x, factor):  # as the published corruptions take it
            large = zoom(x, factor)
            top, left = ((n - m) // 2 for n, m in zip(large.shape, x.shape[:2], strict=False))
            return large[top : top + x.shape[0], left : left + x.shape[1]]

        def random_noise(x, **options):
            return noisy(x, rng=np.random.default_rng(5), **options)

        patch.setattr(made, "gaussian", gaussian)
        patch.setattr(made, "clipped_zoom", centred)
        patch.setattr(made.sk.util, "random_noise", random_noise)
        unscaled = SimpleNamespace(**{**vars(cv2), "resize": lambda frost, **_: frost})
        yield made, SimpleNamespace(**{**vars(made), "cv2": unscaled})


def picture(height=48, width=64):
    """Return a smooth image with edges, dark and white parts, as bytes."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(9 * x + 5 * y + phase) * (1 + y) * 90 + 130 for phase in (0, 1, 2)]
    found = np.stack(waves, axis=2)
    found[height // 4 : height // 2, width // 3 : width // 2] = (250, 30, 90)
    found[-9:, -9:] = 0
    return np.clip(found, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "elastic_transform"])
def test_corruptions_are_those_of_the_library(library, name, monkeypatch):
    made, unscaled = library
    if name == "frost":  # the published frost is not enlarged
        monkeypatch.setattr(made, "cv2", unscaled.cv2)
    image = picture()
    for severity in range(1, 6):
        np.random.seed(severity)
        theirs = np.uint8(np.asarray(getattr(made, name)(Image.fromarray(image), severity)))
        random = RandomState(severity)
        if name == "impulse_noise":
            random = SimpleNamespace(random_sample=np.random.default_rng(5).random)
        ours = function_of(name)(image / 255, random, *IMAGENET[name][severity - 1])
        ours = np.uint8(np.clip(ours, 0, 1) * 255 + 1e-6)
        apart = np.abs(ours.astype(int) - theirs)
        assert apart.max() <= LEVELS.get(name, 0), severity
        assert apart.mean() < 0.6 and (ours != image).any()


@pytest.mark.parametrize("severity", range(1, 6))
def test_the_elastic_transform_is_the_published_one(severity):
    cv2 = pytest.importorskip("cv2")
    from scipy.ndimage import gaussian_filter, map_coordinates

    image = picture(32, 32).astype(np.float32) / 255
    alpha, sigma, affine = (32 * share for share in CIFAR["elastic_transform"][severity - 1])
    random = RandomState(severity)
    points = np.float32([[26, 26], [26, 6], [6, 6]])
    moved = points + random.uniform(-affine, affine, size=(3, 2)).astype(np.float32)
    linear = cv2.getAffineTransform(points, moved)
    theirs = cv2.warpAffine(image, linear, (32, 32), borderMode=cv2.BORDER_REFLECT_101)
    noise = [random.uniform(-1, 1, size=(32, 32)) for _ in range(2)]
    dx, dy = (gaussian_filter(n, sigma, mode="reflect", truncate=3) * alpha for n in noise)
    y, x = np.mgrid[:32, :32]
    bent = [
        map_coordinates(c, (y + dy, x + dx), order=1, mode="reflect") for c in cv2.split(theirs)
    ]
    parameters = CIFAR["elastic_transform"][severity - 1]
    ours = function_of("elastic_transform")(image.astype(float), RandomState(severity), *parameters)
    apart = np.abs(ours - np.stack(bent, axis=2))
    assert apart.mean() < 0.003 and apart.max() < 0.06  # OpenCV rounds places to 1/32 of a pixel


def test_frost_is_reduced_to_a_fifth_at_small_images():
    cv2 = pytest.importorskip("cv2")
    if "frost" not in HERE:
        pytest.skip("imagecorruptions is not installed")
    folder = importlib.util.find_spec("imagecorruptions").submodule_search_locations[0]
    for number in (0, 1):
        whole = cv2.imread(f"{folder}/frost/{weather.TEXTURES[number]}")
        theirs = cv2.resize(whole, (0, 0), fx=0.2, fy=0.2)[..., ::-1]
        np.testing.assert_array_equal(
            np.round(weather._texture(number, 5, 32, 32) * 255), theirs.astype(float)
        )


def test_glass_moves_one_pixel_after_the_other():
    image = picture(12, 10) / 255
    moved, random = (np.floor(image * 255) / 255).copy(), RandomState(3)
    for _ in range(2):
        for h in range(10, 2, -1):
            for w in range(8, 2, -1):
                dx, dy = random.randint(-2, 2, size=2)
                moved[h, w] = moved[h + dy, w + dx].copy()
    ours = blur.glass_blur(image, RandomState(3), 0.0, 2, 2)
    np.testing.assert_allclose(ours, moved, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 40)])
def test_each_image_is_corrupted_alone(shape):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    for name in HERE:
        whole = corrupt(images, name, 4, seed=7)
        assert whole.shape == images.shape and whole.dtype == torch.float32
        assert whole.min() >= 0 and whole.max() <= 1
        assert torch.equal(whole * 255, (whole * 255).round())
        alone = corrupt(images[2:], name, 4, seed=7, rows=[2])
        assert torch.equal(alone, whole[2:]), name
        as_bytes = corrupt((images * 255).round().byte(), name, 4, seed=7)
        assert torch.equal(as_bytes.float() / 255, whole)
        assert (name == "saturate" and shape[0] == 1) or (whole - images).abs().max() > 0.01, name


def test_the_seed_and_the_severity_decide():
    images = torch.full((2, 1, 16, 16), 0.5)
    one, other = (cb.corrupt(images, "gaussian_noise", severity=3, seed=s) for s in (0, 1))
    assert not torch.equal(one, other) and not torch.equal(one[0], one[1])
    assert torch.equal(one, cb.corrupt(images, "gaussian_noise", severity=3))
    spread = [cb.corrupt(images, "gaussian_noise", s).std().item() for s in range(1, 6)]
    assert spread == pytest.approx([0.04, 0.06, 0.08, 0.09, 0.1], rel=0.15)


def test_mistakes_are_one_line(monkeypatch):
    images = torch.rand(2, 3, 8, 8)
    for wrong, text in {
        ("fogg", 3): "did you mean 'fog'",
        ("fog", 6): "severity 6 of fog: give 1 to 5",
    }.items():
        with pytest.raises(CembenchError, match=text):
            corrupt(images, *wrong)
    with pytest.raises(CembenchError, match="1 or 3 channels"):
        corrupt(torch.rand(2, 2, 8, 8), "fog")
    monkeypatch.setitem(corruptions.NEEDS, "frost", "no_such_package")
    assert "frost" in corruptions.without_extra()
    with pytest.raises(CembenchError, match=r"cembench\[corruptions\]"):
        corrupt(images, "frost")


def test_fifteen_are_common():
    assert len(COMMON) == 15 and set(CIFAR) == set(IMAGENET) == set(NAMES)
    assert all(len(row) == 5 for table in (CIFAR, IMAGENET) for row in table.values())
