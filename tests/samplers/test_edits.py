"""Counterfactuals meet closed forms, restored images keep what is known, and files say so."""

import json
import math

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import cembench as cb
from cembench.energy.norms import L2, NORMS
from cembench.samplers.counterfactual import Counterfactual
from cembench.samplers.edit_files import edited_by
from cembench.samplers.restoration import HALVES, Denoise, Inpaint
from cembench.util.errors import CembenchError, ConfigError
from tests.conftest import Linear, images, labels
from tests.support.checkpoints import rewrite


@pytest.fixture
def line():
    """A linear network of two classes, grey images, and the gap of their logits."""
    model = Linear(64, 2)
    model.bias.data = -0.5 * model.weight.data.sum(1)
    x = 0.45 + 0.1 * images(24)
    logits = model(x).detach()
    target = logits.argmin(1)
    gap = (logits.amax(1) - logits.amin(1)).double()
    return model, x, target, gap


# In ℓ1 and ℓ0 a step changes more than one pixel, so the change is larger than the distance.
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("level", [0.0, 0.9])
def test_the_change_is_the_distance_to_the_level_on_a_linear_network(line, norm, level):
    model, x, target, gap = line
    rise = gap + math.log(level / (1 - level)) if level else gap
    dual = 1 / (1 - 1 / NORMS[norm].order)
    slope = (model.weight[0] - model.weight[1]).double().norm(p=dual)
    distance = (rise / slope).detach()
    search = Counterfactual(eps=1.01 * float(distance.max()), norm=norm, confidence=level)
    found = search.search(model, x, target)
    size = search.ball.size((found - x).double())
    torch.testing.assert_close(size, distance, rtol=2e-3, atol=1e-6)
    assert bool(search.reached(model(found), x, found, target).all())


def test_an_image_farther_away_than_the_radius_ends_on_the_ball_and_does_not_count(line):
    model, x, target, gap = line
    slope = float((model.weight[0] - model.weight[1]).detach().norm())
    eps = float(gap.median()) / slope
    search = Counterfactual(eps=eps, confidence=0.0)
    found = search.search(model, x, target)
    reached = search.reached(model(found), x, found, target)
    assert reached.tolist() == (gap / slope < eps).tolist() and 0 < int(reached.sum()) < len(x)
    far = L2(eps).size(found - x)[~reached]
    torch.testing.assert_close(far, torch.full_like(far, eps), rtol=1e-3, atol=0)


def test_an_image_that_is_read_so_already_stays_as_it_is(line):
    model, x, target, _ = line
    search = Counterfactual(eps=1.0, confidence=0.0)
    assert torch.equal(search.search(model, x, 1 - target), x)


def test_what_leaves_the_ball_or_the_pixels_is_no_counterfactual(line):
    model, x, target, _ = line
    search = Counterfactual(eps=0.5, confidence=0.0)
    step = (model.weight[target] - model.weight[1 - target]).detach().reshape(x.shape)
    for scale in (10.0, 1.0):
        changed = x + scale * step
        assert not bool(search.reached(model(changed), x, changed, target).any())


class Bowl(nn.Module):
    """Logits −(x − μ)ᵀA(x − μ)/2 of one class and 0 of the other: all closed forms are known."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        half = torch.randn(16, 16, generator=generator)
        self.a = half @ half.T / 16 + torch.eye(16)
        self.mean = 0.4 + 0.2 * torch.rand(16, generator=generator)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        delta = (x.flatten(1) - self.mean) * self.scale
        value = -0.5 * ((delta @ self.a) * delta).sum(1)
        return torch.stack([value, torch.zeros_like(value)], 1)


CLIMB = {"name": "cs", "direction": "raw", "noise": 0.0, "step_size": 0.2, "steps": 300}


@pytest.mark.parametrize("part", [*HALVES, "random:0.3"])
def test_the_filled_part_of_a_quadratic_energy_is_its_conditional_mean(part):
    bowl, edit = Bowl(), Inpaint.parse({"part": part, "sampler": CLIMB})
    x = 0.45 + 0.1 * images(6)[:, :, :4, :4]
    known = edit.known(x, torch.Generator().manual_seed(1)).flatten()
    edited = edited_by(bowl, edit, x, torch.zeros(6, dtype=torch.long))
    if part.startswith("random"):
        known = (edited.starts == x).flatten(1).all(0)
    found, given = edited.images.flatten(1), x.flatten(1)
    assert torch.equal(found[:, known], given[:, known]) and 0 < int(known.sum()) < 16
    shift = torch.linalg.solve(
        bowl.a[~known][:, ~known], bowl.a[~known][:, known] @ (given[:, known] - bowl.mean[known]).T
    )
    torch.testing.assert_close(found[:, ~known], bowl.mean[~known] - shift.T, rtol=0, atol=1e-3)


def test_a_denoised_image_is_the_likeliest_in_the_ball_around_the_noisy_one():
    bowl, edit = Bowl(), Denoise.parse({"sigma": 0.05, "sampler": CLIMB})
    bowl.a = torch.eye(16)
    x = 0.3 + 0.4 * images(6)[:, :, :4, :4]
    edited = edited_by(bowl, edit, x, torch.zeros(6, dtype=torch.long))
    way = bowl.mean.reshape(1, 1, 4, 4) - edited.starts
    length = way.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    expected = edited.starts + way * (0.05 * 4 / length).clamp_max(1)
    torch.testing.assert_close(edited.images, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["rcs", "sgld"])
def test_known_pixels_are_the_same_to_the_last_bit(trained, name):
    edited = cb.restore(trained, inpaint="left", sampler=name, count=12)
    assert torch.equal(edited.images[..., 4:], edited.originals[..., 4:])
    assert not torch.equal(edited.images[..., :4], edited.starts[..., :4])
    assert float(edited.images.min()) >= 0 and float(edited.images.max()) <= 1


def test_restored_images_repeat_by_their_seed(trained):
    first, again, other = (
        cb.restore(trained, denoise=0.1, count=8, seed=seed).starts for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    whole = cb.restore(trained, denoise=0.1, count=8)
    summary = whole.summary()
    apart = (whole.starts - whole.originals).flatten(1).norm(dim=1).mean()
    assert summary["distance_start"] == pytest.approx(float(apart)) and "own_acc" in summary
    assert repr(whole).startswith("<Edited 8 images of 1×8×8: ")


def test_counterfactuals_of_given_images_and_networks():
    model, x = Linear(64, 4), images(8)
    found = cb.counterfactuals(model, x, eps=7.9, confidence=0.5, device="cpu")
    assert torch.equal(found.classes, model(x).argmax(1))
    assert bool((found.labels != found.classes).all()) and bool((found.confidence > 0.49).all())
    given = cb.counterfactuals(model, x, labels(8, 4), target=2, eps=7.9, device="cpu")
    assert given.labels.tolist() == [2] * 8 and given.grid()[:4] == b"\x89PNG"
    each = cb.counterfactuals(model, x, target=labels(8, 4), eps=7.9, device="cpu")
    assert torch.equal(each.labels, labels(8, 4))


def test_counterfactuals_of_a_checkpoint_avoid_the_class_they_approach(trained):
    found = cb.counterfactuals(trained, eps=2.0, target=3, count=30, steps=20)
    assert len(found.images) == 30 and 3 not in found.classes.tolist()
    before = torch.stack([one[3] for one in cb.load(trained)(found.originals).softmax(1)])
    assert bool((found.confidence > before.detach()).all())


def test_the_command_writes_a_picture_and_says_how_many_reached_the_class(
    cembench, trained, tmp_path
):
    out, tensors = tmp_path / "grid.png", tmp_path / "all.safetensors"
    args = ["sample", trained, "--counterfactual", "--class", "3", "--eps", "2", "-n", 12]
    result = cembench(*args, "--steps", 20, "--out", out, "--save-tensors", tensors)
    assert result.code == 0 and "counterfactuals of 12 test images" in result.out
    assert "reached the class with confidence 0.9: " in result.out
    kept = load_file(tensors)
    assert kept["images"].shape == kept["originals"].shape == (12, 1, 8, 8)
    assert kept["labels"].tolist() == [3] * 12 and Image.open(out).width > 600
    said = json.loads(cembench(*args, "--confidence", "0.5", "--out", out, "--json").out)
    assert said["images"] == 12 and said["settings"]["confidence"] == 0.5
    assert said["confidence"] > said["confidence_start"]


def test_the_command_restores_and_compares_networks(cembench, trained, undefended, tmp_path):
    out = tmp_path / "grid.png"
    single = cembench("sample", trained, "--inpaint", "top", "-n", 10, "--out", out)
    assert "mean PSNR to the originals" in single.out
    height = Image.open(out).height
    both = cembench("sample", trained, undefended, "--denoise", "25/255", "-n", 10, "--out", out)
    assert "tiny: mean l2 error" in both.out and "run: mean PSNR" in both.out
    assert Image.open(out).height > height


def test_rows_of_several_networks_start_from_the_same_images(
    cembench, trained, undefended, tmp_path
):
    out = tmp_path / "rows.png"
    args = ["-n", 12, "steps=3", "--out", out]
    result = cembench("sample", trained, undefended, trained, *args)
    assert result.code == 0 and "tiny (2): classified as intended" in result.out
    assert Image.open(out).width > 600
    said = json.loads(cembench("sample", trained, undefended, *args, "--json").out)
    assert set(said["networks"]) == {"tiny", "run"} and said["samples"] == 12

    def hold_out(values):
        values["config"]["validation"]["fraction"] = 0.5

    held = rewrite(trained, tmp_path / "held.safetensors", hold_out)
    other = cembench("sample", trained, held, *args)
    assert other.code == 2 and "held starts from other images than tiny" in other.err
    assert "take --init noise" in other.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--counterfactual"], "eps: required"),
        (["--counterfactual", "--eps", "2", "--inpaint", "top"], "give one of them"),
        (["--counterfactual", "--eps", "-1"], "eps: "),
        (["--counterfactual", "--eps", "1", "--confidence", "1.5"], "confidence: "),
        (["--counterfactual", "--eps", "1", "--norm", "l7"], "norm: give one of linf, l2"),
        (["--counterfactual", "--eps", "1", "--sampler", "cs"], "--sampler: not with"),
        (["--counterfactual", "--eps", "1", "--class", "x"], "no class 'x'"),
        (["--eps", "2"], "--eps: goes with --counterfactual"),
        (["--inpaint", "middle"], "give one of top"),
        (["--inpaint", "random:2"], "random:SHARE"),
        (["--inpaint", "top", "--init", "data"], "--init: not with --inpaint"),
        (["--inpaint", "top", "--sampler", "pgd"], "sampler pgd restores no images"),
        (["--inpaint", ""], "give one of top"),
        (["--denoise", "0"], "sigma: "),
        (["--denoise", "25"], "sigma: input should be less than 1"),
        (["--denoise", ""], "sigma: "),
    ],
)
def test_mistakes_are_named_before_torch_is_needed(cembench, trained, args, message):
    result = cembench("sample", trained, *args)
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1


X = images(3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 255 * X}, "images: give floats in"),
        ({"images": (255 * X).byte()}, "images: give floats in"),
        ({"images": X[0]}, "images: give floats in"),
        ({"images": X[:0]}, "images: give floats in"),
        ({"images": X * math.nan}, "images: give floats in"),
        ({"labels": torch.tensor([1, 2])}, "labels: give 3 integers from 0 to 9"),
        ({"target": 10}, "target: give 3 integers from 0 to 9"),
        ({"target": torch.tensor([1, -1, 2])}, "target: give 3 integers from 0 to 9"),
        ({"eps": 128.0}, "eps: 128 reaches every image"),
    ],
)
def test_images_and_classes_that_do_not_fit_are_one_line(trained, changes, message):
    with pytest.raises(CembenchError, match=message):
        cb.counterfactuals(trained, **{"images": X, "eps": 1.0, "device": "cpu", **changes})


def test_encoders_and_missing_choices_are_refused(encoder, trained):
    with pytest.raises(CembenchError, match="need logits"):
        cb.counterfactuals(encoder, eps=1.0)
    with pytest.raises(CembenchError, match="inpaint or denoise"):
        cb.restore(trained)
    with pytest.raises(ConfigError, match="eps"):
        Counterfactual.parse({"eps": 0.0})
