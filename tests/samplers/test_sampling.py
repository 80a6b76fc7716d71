"""`cembench sample`: balanced, repeatable, from any checkpoint, and clear about what is missing."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cembench.data.digits import Digits
from cembench.models.checkpoint import load_checkpoint
from cembench.samplers import InitialImages, samplers
from cembench.samplers.context import CheckpointImages
from cembench.samplers.draw import chunks, draw
from cembench.samplers.several import Several
from cembench.samplers.to_files import sample_to_files
from cembench.training.train import train
from cembench.util.errors import CembenchError
from tests.conftest import experiment


def drawn(run, settings, count=30, seed=0, label=None):
    model, metadata = load_checkpoint(run)
    images = CheckpointImages(run / "model.safetensors", metadata, torch.device("cpu"))
    sampler = samplers.parse(settings)
    y = next(chunks(sampler, count, len(metadata.classes)))
    y = y if label is None else torch.full_like(y, label)
    return draw(model.requires_grad_(False), sampler, y, images, seed)


ALL = [name for name in samplers.names() if not issubclass(samplers.find(name), Several)]


@pytest.mark.parametrize("name", ALL)  # the others make negatives alone
def test_every_sampler_works_on_a_plain_checkpoint_and_repeats(trained, name):
    start = {"start": "noise"} if name == "sgld" else {}
    settings = {"name": name, "steps": 3, **start}
    first, again, other = (drawn(trained, settings, seed=seed) for seed in (1, 1, 2))
    assert first.images.shape == first.starts.shape == (30, 1, 8, 8)
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    conditional = set() if name in ("maxent", "np-sgld") else {"own_acc_start", "own_acc"}
    assert set(first.summary()) == {"lse_start", "lse"} | conditional


def test_chunks_are_balanced_and_cover_the_count():
    labels = torch.cat(list(chunks(samplers.parse("rcs"), 1003, 10, 256)))
    assert len(labels) == 1003 and labels.bincount().tolist() == [101] * 3 + [100] * 7


def test_no_chunk_is_one_sample_alone():
    for count, sizes in ((1, [1]), (256, [256]), (257, [257]), (258, [256, 2]), (513, [256, 257])):
        found = list(chunks(samplers.parse("maxent"), count, 10, 256))
        assert [len(y) for y in found] == sizes and {int(v) for y in found for v in y} == {-1}


def test_samplers_get_what_they_need_and_gaussians_are_fitted_once(trained):
    metadata = load_checkpoint(trained)[1]
    images = CheckpointImages(trained / "model.safetensors", metadata, torch.device("cpu"))
    one, two = (
        images.initial(samplers.parse({"name": n, "start": "pooled"})) for n in ("ta", "cs")
    )
    assert one.gaussians is two.gaussians is not None
    assert one.buffer is one.other_data is one.training is None
    assert images.initial(samplers.parse("np-sgld")).training is images.data
    assert images.initial(samplers.parse("pgd")) == InitialImages()


def test_noise_needs_no_data(trained, monkeypatch):
    def absent(self, split):
        raise CembenchError("no data")

    monkeypatch.setattr(Digits, "load", absent)
    assert drawn(trained, {"name": "rcs", "start": "noise", "steps": 1}).images.shape[0] == 30
    with pytest.raises(CembenchError, match="no data"):
        drawn(trained, {"name": "rcs", "steps": 1})


def test_samplers_that_start_alike_start_from_the_same_images(trained):
    for start in ("gaussian", "noise", "data"):
        ta, rcs = (drawn(trained, {"name": n, "start": start, "steps": 2}) for n in ("ta", "rcs"))
        assert torch.equal(ta.starts, rcs.starts) and not torch.equal(ta.images, rcs.images)


def test_climbing_raises_what_is_climbed(trained):
    summary = drawn(trained, {"name": "rcs", "start": "noise", "steps": 40}, 100).summary()
    assert summary["lse"] > summary["lse_start"] and summary["own_acc"] > summary["own_acc_start"]


def test_data_starts_are_training_images_of_the_class_and_not_held_out_ones(trained):
    found = drawn(trained, {"name": "ta", "start": "data", "steps": 1}, 20, label=7)
    _, metadata = load_checkpoint(trained)
    data, _ = metadata.training_split()
    sevens = data.pixels(data.labels == 7)
    assert all((sevens == start).flatten(1).all(1).any() for start in found.starts)


def test_a_buffer_start_draws_from_the_saved_buffer(tmp_path, trained):
    method = {"name": "jem", "negatives": {"name": "sgld", "steps": 2, "buffer": 100}}
    run = tmp_path / "jem"
    train(experiment(method=method, epochs=1, optimizer={"lr": 0.001}), run)
    settings = {"name": "sgld", "steps": 1, "renewed": 0.0}
    kept = load_file(run / "buffer.safetensors")["images"]
    starts = drawn(run, settings).starts
    assert all((kept == start).flatten(1).all(1).any() for start in starts)
    with pytest.raises(CembenchError, match="no replay buffer, or damaged; start from gaussian"):
        drawn(trained, settings)
    (run / "buffer.safetensors").write_bytes(b"half")
    with pytest.raises(CembenchError, match="no replay buffer"):
        drawn(run, settings)


def test_an_outside_start_takes_another_data_set_and_fits_it(trained, tmp_path):
    for split in ("train", "test"):
        for name, shade in (("a", 10), ("b", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (12, 12), (shade,) * 3).save(tmp_path / split / name / "0.png")
    outside = {"name": "folder", "root": str(tmp_path)}
    starts = drawn(
        trained, {"name": "sgld", "start": "outside", "outside": outside, "steps": 1}
    ).starts
    assert starts.shape == (30, 1, 8, 8)
    assert set((starts * 255).round().unique().int().tolist()) == {10, 200}
    with pytest.raises(CembenchError, match="outside needs a data set"):
        samplers.parse({"name": "rcs", "start": "outside"})


def test_leaving_the_finite_numbers_names_step_and_step_size(trained):
    wild = {"name": "cs", "direction": "raw", "step_size": 1e37, "start": "noise", "box": False}
    message = r"cs: values are not finite at step \d+; lower step_size, which is 1e\+37"
    with pytest.raises(CembenchError, match=message):
        drawn(trained, wild)


def test_the_command_writes_picture_tensors_and_trajectory(cembench, trained, tmp_path):
    picture, tensors, strip = (tmp_path / n for n in ("grid.png", "s.safetensors", "strip.png"))
    args = ("--sampler", "cs", "-n", 20, "--steps", 2, "--set", "noise=0.01", "--out", picture)
    args = (*args, "--save-tensors", tensors, "--trajectory", strip)
    result = cembench("sample", trained, *args, "--json")
    printed = json.loads(result.out)
    assert result.code == 0 and printed["sampler"]["noise"] == 0.01 and printed["samples"] == 20
    kept = load_file(tensors)
    assert kept["images"].shape == kept["starts"].shape == (20, 1, 8, 8)
    assert kept["labels"].tolist() == [*range(10)] * 2
    for file in (picture, strip):
        with Image.open(file) as image:
            assert image.width > 100 and len(image.getcolors(1 << 20)) > 10
    one = cembench("sample", trained, "--class", "3", "-n", 4, "--steps", 1, "--out", picture)
    assert one.code == 0 and one.out.startswith("4 samples of rcs-gaussian, 1 steps: ")
    assert "classified as intended: " in one.out and "(initial images: " in one.out
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (picture, tensors, strip)}


def test_the_kind_of_initial_images_has_two_option_names(cembench, trained, tmp_path):
    kinds = []
    for option in ("--init", "--seeds"):
        args = (option, "noise", "--steps", 1, "-n", 4, "--json", "--out", tmp_path / "grid.png")
        kinds.append(json.loads(cembench("sample", trained, *args).out)["sampler"]["start"])
    assert kinds == ["noise", "noise"]


def test_a_gif_has_a_frame_a_step(trained, tmp_path):
    sampler = samplers.parse({"name": "rcs", "steps": 4, "start": "noise"})
    film = tmp_path / "chain.gif"
    sample_to_files(trained, sampler, 10, picture=tmp_path / "g.png", trajectory=film)
    with Image.open(film) as image:
        assert image.n_frames == 5


def test_more_samples_than_a_chunk_stream_into_the_file(trained, tmp_path):
    sampler = samplers.parse({"name": "rcs", "steps": 1})
    tensors = tmp_path / "t.safetensors"
    sample_to_files(trained, sampler, 600, picture=tmp_path / "g.png", tensors=tensors)
    kept = load_file(tensors)
    assert (
        kept["images"].shape == (600, 1, 8, 8) and kept["labels"].bincount().tolist() == [60] * 10
    )
    moved = (kept["images"] - kept["starts"]).flatten(1).norm(dim=1)
    assert (moved > 0).all()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--sampler", "rc"), "unknown sampler 'rc'; did you mean 'rcs'"),
        (("--class", "eleven"), "no class 'eleven'"),
        (("--set", "stepz=3"), "did you mean 'steps'"),
        (("--sampler", "pgd", "--seeds", "noise"), "start"),
        (("--sampler", "sgld"), "no replay buffer"),
        (("--trajectory", "x.mp4"), "give a .gif, or a .png"),
        (("--sampler", "pgd", "--trajectory", "x.gif"), "pgd is an attack"),
        (("--save-tensors", "/proc/none/t.safetensors"), "cannot write"),
    ],
)
def test_mistakes_are_one_line(cembench, trained, tmp_path, args, message):
    result = cembench("sample", trained, *args, "--out", tmp_path / "x.png")
    assert result.code == 2 and len(result.err.splitlines()) == 1 and message in result.err
    assert not (tmp_path / "x.png").exists()
