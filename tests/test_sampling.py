"""`cembench sample`: balanced, repeatable, from any checkpoint, and clear about what is missing."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cembench.errors import CembenchError
from cembench.samplers import samplers
from cembench.sampling import draw_samples
from cembench.training import train
from tests.conftest import experiment


@pytest.mark.parametrize("name", samplers.names())
def test_every_sampler_works_on_a_plain_checkpoint(trained, name):
    start = {"start": "noise"} if name == "sgld" else {}
    settings = samplers.parse({"name": name, "steps": 3, **start})
    first, passport = draw_samples(trained, settings, 300, seed=1)
    assert first.images.shape == first.starts.shape == (300, *passport.shape)
    assert first.labels.bincount().tolist() == [30] * 10
    again, _ = draw_samples(trained, settings, 300, seed=1)
    other, _ = draw_samples(trained, settings, 300, seed=2)
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    assert set(first.summary()) == {"own_acc_start", "own_acc", "lse_start", "lse"}


def test_climbing_raises_what_is_climbed(trained):
    drawn, _ = draw_samples(trained, samplers.parse({"name": "rcs", "start": "noise"}), 100)
    summary = drawn.summary()
    assert summary["lse"] > summary["lse_start"] and summary["own_acc"] > summary["own_acc_start"]


def test_data_starts_are_training_images_of_the_class(trained):
    settings = samplers.parse({"name": "ta", "start": "data", "steps": 1})
    drawn, passport = draw_samples(trained, settings, 20, label=7)
    data = passport.data.load("train")
    sevens = data.pixels(data.labels == 7)
    assert all((sevens == start).flatten(1).all(1).any() for start in drawn.starts)
    assert drawn.labels.tolist() == [7] * 20


def test_a_buffer_start_draws_from_the_saved_buffer(tmp_path, trained):
    method = {"name": "jem", "negatives": {"name": "sgld", "steps": 2, "buffer": 100}}
    path = train(experiment(method=method, epochs=1, optimizer={"lr": 0.001}), tmp_path / "jem")
    settings = samplers.parse({"name": "sgld", "steps": 1, "renewed": 0.0})
    drawn, _ = draw_samples(path, settings, 30)
    kept = load_file(path.parent / "buffer.safetensors")["images"]
    assert all((kept == start).flatten(1).all(1).any() for start in drawn.starts)
    with pytest.raises(CembenchError, match="no replay buffer; start from gaussian or noise"):
        draw_samples(trained, settings, 30)
    (path.parent / "buffer.safetensors").write_bytes(b"half")
    with pytest.raises(CembenchError, match="no replay buffer"):
        draw_samples(path, settings, 30)


def test_leaving_the_finite_numbers_names_step_and_remedy(trained):
    wild = {"name": "cs", "direction": "raw", "step_size": 3e38, "start": "noise", "box": False}
    with pytest.raises(
        CembenchError, match=r"left the finite numbers at step \d+; lower step_size"
    ):
        draw_samples(trained, samplers.parse(wild), 10)


def test_the_command_writes_a_picture_and_tensors(cembench, trained, tmp_path):
    picture, tensors = tmp_path / "grid.png", tmp_path / "s.safetensors"
    result = cembench(
        "sample",
        trained,
        "--sampler",
        "cs",
        "-n",
        20,
        "--steps",
        2,
        "--set",
        "noise=0.01",
        "--out",
        picture,
        "--save-tensors",
        tensors,
    )
    printed = json.loads(result.out)
    assert result.code == 0 and printed["sampler"]["noise"] == 0.01 and printed["samples"] == 20
    assert load_file(tensors)["images"].shape == (20, 1, 8, 8)
    with Image.open(picture) as image:
        assert image.width > 100 and len(image.getcolors(1 << 20)) > 10
    one = cembench("sample", trained, "--class", "3", "-n", 4, "--steps", 1, "--out", picture)
    assert one.code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--sampler", "rc"), "unknown sampler 'rc'; did you mean 'rcs'"),
        (("--class", "eleven"), "no class 'eleven'"),
        (("--set", "stepz=3"), "did you mean 'steps'"),
        (("--sampler", "pgd", "--seeds", "noise"), "start"),
        (("--sampler", "sgld"), "no replay buffer"),
    ],
)
def test_mistakes_are_one_line(cembench, trained, tmp_path, args, message):
    result = cembench("sample", trained, *args, "--out", tmp_path / "x.png")
    assert result.code == 2 and len(result.err.splitlines()) == 1 and message in result.err
    assert not (tmp_path / "x.png").exists()
