"""MaxEnt and InfoNCE sampling: they climb embeddings, ask for no class, and are measured alike."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cembench import energy
from cembench.data.digits import Digits
from cembench.energy.potentials import BatchEntropy
from cembench.energy.similarity import SimilarityClassifier
from cembench.evaluation.record.files import load_record, save_record
from cembench.evaluation.sections.robustness import Figure
from cembench.models.checkpoint import load_checkpoint, save_checkpoint
from cembench.samplers import samplers
from cembench.samplers.context import CheckpointImages
from cembench.samplers.draw import chunks, draw, target_rows
from cembench.samplers.initial import clustered, fit_gaussians
from cembench.samplers.to_files import sample_to_files
from cembench.training.train import train
from cembench.util.errors import CembenchError, ConfigError, SamplingError
from tests.conftest import experiment

NAMES = ["maxent", "infonce", "np-sgld"]
PROTOCOL = """
limit: 60
attacks: [{name: pgd, steps: 2}]
density: {steps: 2}
samples:
  count: 60
  extractor: {name: lite0, size: 32}
  samplers:
  - {name: rcs, steps: 2}
  - {name: maxent, steps: 5}
  - {name: infonce, start: cluster, steps: 5}
  - {name: infonce, label: one, image: 7, steps: 5}
"""


@pytest.fixture(params=["encoder", "classifier"])
def run(request, encoder, trained):
    return encoder if request.param == "encoder" else trained


def drawn(run, settings, count=24, seed=0):
    model, metadata = load_checkpoint(run)
    model.requires_grad_(False)
    images = CheckpointImages(run / "model.safetensors", metadata, torch.device("cpu"))
    sampler = samplers.parse(settings)
    y = next(chunks(sampler, count, len(metadata.classes)))
    return model, images, sampler, draw(model, sampler, y, images, seed)


@pytest.mark.parametrize("start", ["pooled", "cluster", "noise", "data"])
@pytest.mark.parametrize("name", NAMES)
def test_samples_stay_images_repeat_and_leave_the_network_alone(run, name, start):
    settings = {"name": name, "start": start, "steps": 4}
    model, _, _, first = drawn(run, settings)
    fresh = load_checkpoint(run)[0].state_dict()
    assert all(torch.equal(fresh[key], value) for key, value in model.state_dict().items())
    assert first.images.min() >= 0 and first.images.max() <= 1
    assert not torch.equal(first.images, first.starts)
    assert torch.equal(first.images, drawn(run, settings)[3].images)
    assert not torch.equal(first.images, drawn(run, settings, seed=1)[3].images)
    assert first.logits.shape == (24, 0 if run.name == "infonce" else 10)
    assert (first.labels < 0).all() == (name != "infonce")


def test_maxent_raises_the_entropy_of_the_batch(run):
    model, _, sampler, found = drawn(run, {"name": "maxent", "steps": 20})
    entropy = BatchEntropy(sampler.temperature)
    before, after = (
        entropy(z, z).sum() for z in (model.encoder(found.starts), model.encoder(found.images))
    )
    assert after > before + 0.1


def test_np_sgld_raises_the_marginal_beside_training_images(run):
    model, images, sampler, found = drawn(run, {"name": "np-sgld", "steps": 20})
    with torch.no_grad():
        bank = model.encoder(images.data.pixels(slice(0, 200)))
        classifier = SimilarityClassifier(model.encoder, sampler.temperature, bank)
        before, after = (energy.marginal(classifier(x)) for x in (found.starts, found.images))
    assert (after > before).float().mean() > 0.8


def test_np_sgld_goes_on_from_the_buffer_that_training_left(tmp_path, encoder):
    method = {"name": "np-jem", "negatives": {"steps": 2, "buffer": 40}}
    train(experiment(method=method, epochs=1, optimizer={"lr": 0.001}), tmp_path / "np")
    settings = {"name": "np-sgld", "start": "buffer", "renewed": 0.0, "steps": 1}
    kept = load_file(tmp_path / "np" / "buffer.safetensors")["images"]
    starts = drawn(tmp_path / "np", settings)[3].starts
    assert all((kept == start).flatten(1).all(1).any() for start in starts)
    with pytest.raises(SamplingError, match="no replay buffer"):
        drawn(encoder, settings)


def test_one_sample_alone_has_no_entropy(encoder, cembench, tmp_path):
    result = cembench(
        "sample", encoder, "--sampler", "maxent", "-n", 1, "--out", tmp_path / "x.png"
    )
    assert result.code == 2 and "maxent needs two samples or more" in result.err


def test_classes_cannot_be_asked_of_samplers_that_know_none(trained, cembench, tmp_path):
    for options in (("--sampler", "maxent"), ("--sampler", "infonce", "--image", 7)):
        args = (*options, "--class", "3", "--out", tmp_path / "x.png")
        result = cembench("sample", trained, *args)
        assert result.code == 2 and "--class: with --image, or a sampler" in result.err
    _, images, sampler, _ = drawn(trained, {"name": "infonce"})
    rows = target_rows(sampler, torch.full((30,), 3), images, 0)
    assert images.data.labels[rows].tolist() == [3] * 30


def test_maxent_uses_noise_that_is_asked_for(encoder):
    still = drawn(encoder, {"name": "maxent", "steps": 1})[3].images
    noisy = drawn(encoder, {"name": "maxent", "steps": 1, "noise": 0.2})[3].images
    assert 0.05 < (noisy - still).std() < 0.3


def test_infonce_goes_for_its_image_more_than_for_others(run):
    model, images, sampler, found = drawn(run, {"name": "infonce", "steps": 20, "step_size": 0.05})
    rows = target_rows(sampler, torch.full((24,), -1), images, 0)
    assert torch.equal(images.data.labels[rows], found.labels)
    assert len(rows.unique()) > 20
    goal = model.encoder(images.data.pixels(rows))
    near = [(model.encoder(x) * goal).sum(1) for x in (found.starts, found.images)]
    assert (near[1] > near[0]).float().mean() > 0.9 and (near[1] - near[0]).mean() > 0.02
    others = (model.encoder(found.images) @ goal.T).mean(1)
    assert (near[1] > others).float().mean() > 0.8


def test_one_given_image_has_variations_of_its_class(encoder):
    _, images, _, found = drawn(encoder, {"name": "infonce", "image": 7})
    assert found.labels.tolist() == [int(images.data.labels[7])] * 24
    with pytest.raises(CembenchError, match="image: 5000 of 1080"):
        drawn(encoder, {"name": "infonce", "image": 5000})


def test_seeds_without_labels_do_not_look_at_them():
    split = Digits().load("train")
    other = replace(split, labels=split.labels.flip(0))
    for start in ("pooled", "cluster"):
        one, two = (
            fit_gaussians(start, data, 10).draw(
                torch.zeros(50, dtype=torch.long), torch.Generator().manual_seed(0)
            )
            for data in (split, other)
        )
        assert torch.equal(one, two)


def test_clusters_are_drawn_as_often_as_they_are_large():
    split = Digits().load("train")
    gaussians = fit_gaussians("cluster", split, 4)
    parts = gaussians.random_labels(20000, torch.Generator().manual_seed(0))
    share = gaussians.split.labels.bincount(minlength=4) / len(split)
    assert torch.allclose(parts.bincount(minlength=4) / 20000, share, atol=0.02)
    pixels, labels = split.pixels().flatten(1), clustered(split, 4).labels
    inside = [pixels[labels == k].var(0).sum() for k in range(4)]
    assert max(inside) < pixels.var(0).sum()
    with pytest.raises(CembenchError, match="clusters: 2000 of 1200 images"):
        clustered(split, 2000)


def test_samplers_of_logits_say_what_an_encoder_lacks(encoder, cembench, tmp_path):
    for name in ("rcs", "ta", "cs", "pgd", "trades"):
        args = ("--sampler", name, "--out", tmp_path / "x.png")
        result = cembench("sample", encoder, *args)
        assert result.code == 2 and "an encoder has none" in result.err
        assert "cembench probe" in result.err and len(result.err.splitlines()) == 1
    with pytest.raises(ConfigError, match="start: input should be 'pooled'"):
        samplers.parse({"name": "maxent", "start": "gaussian"})


@pytest.mark.parametrize("name", NAMES)
def test_the_command_draws_and_films(encoder, cembench, tmp_path, name):
    picture, film = tmp_path / "grid.png", tmp_path / "film.gif"
    args = ("--sampler", name, "-n", 20, "--steps", 3, "--init", "cluster")
    result = cembench("sample", encoder, *args, "--json", "--out", picture, "--trajectory", film)
    assert result.code == 0 and json.loads(result.out)["samples"] == 20
    assert picture.read_bytes()[:4] == b"\x89PNG" and film.read_bytes()[:3] == b"GIF"
    strip = tmp_path / "strip.png"
    sampler = samplers.parse({"name": name, "steps": 2})
    sample_to_files(encoder, sampler, 10, picture=picture, trajectory=strip)
    assert strip.read_bytes()[:4] == b"\x89PNG"


def test_an_encoder_is_measured_by_its_samples_alone(
    encoder, trained, cembench, tmp_path, monkeypatch
):
    from cembench.evaluation.evaluate import evaluate
    from cembench.evaluation.measures import reference
    from cembench.evaluation.protocol import load_protocol
    from cembench.reporting.leaderboard import build_boards

    monkeypatch.setattr(reference, "CLASSIFIER_IMAGES", 300)
    path = tmp_path / "both.yaml"
    path.write_text(PROTOCOL)
    protocol = load_protocol(str(path))
    keep = {"save_samples": True}
    record, place = evaluate(encoder, protocol, folder=tmp_path / "infonce", **keep)
    assert record.kind == "encoder" and record.labels == "none" and record.error is None
    assert record.figures == {} and record.density is None and record.weights_sha256
    found = record.generation.samplers
    assert list(found) == ["maxent-pooled", "infonce-cluster", "one-pooled"]
    assert found["maxent-pooled"].samples.judge_acc is None
    assert found["infonce-cluster"].samples.judge_acc is not None
    assert all(item.own_acc is None and item.lse is None for item in found.values())
    again, _ = evaluate(encoder, protocol, folder=tmp_path / "infonce", reuse=True)
    assert again == load_record(place) == record
    result = cembench("verify", place, encoder)
    assert result.code == 0 and "DIFFERS" not in result.out and "maxent-pooled" in result.out
    robust, _ = evaluate(trained, protocol, folder=tmp_path / "at", **keep)
    assert robust.generation.samplers["maxent-pooled"].own_acc is None
    result = cembench("verify", tmp_path / "at" / "eval" / f"{protocol.name}.json", trained)
    assert result.code == 2 and "--save-adversarial" in result.err
    text = json.loads(place.read_text())
    forged = {"clean": {"correct": 40, "images": 40, "low": 0.9, "high": 1.0, "correct_8bit": 40}}
    other = record.model_copy(update={"figures": {"clean": Figure(**forged["clean"])}})
    save_record(place, other, None)
    assert cembench("verify", place, encoder).code == 1 and text["figures"] == {}
    claimed = robust.model_copy(update={"kind": "encoder", "figures": {}})
    folder = tmp_path / "at" / "eval"
    save_record(folder / f"{protocol.name}.json", claimed, None)
    (folder / f"{protocol.name}.adversarial").mkdir()
    assert cembench("verify", folder / f"{protocol.name}.json", trained).code in (1, 2)
    boards = {board.stem: board for board in build_boards([record, robust])}
    assert list(boards["digits-linf-0.125"].table["run"]) == ["tiny"]
    pooled = boards["digits-samples-pooled"]
    assert set(pooled.table["labels"]) == {"all", "none"} and "labels" in pooled.shown
    assert "–" in list(pooled.shown["read as intended ↑"])
    assert pd.notna(pooled.table["kid_seeds"]).all()


def test_an_encoder_and_a_protocol_of_attacks_have_nothing_in_common(encoder, cembench, tmp_path):
    result = cembench("eval", encoder, "--protocol", "quick")
    assert result.code == 2 and "protocol quick measures nothing" in result.err
    baseline = tmp_path / "baseline.yaml"
    path = tmp_path / "both.yaml"
    path.write_text(PROTOCOL)
    args = ("--baseline", baseline, "--update", "--protocol", path)
    result = cembench("check", encoder, *args)
    assert result.code == 2 and "check its probe" in result.err and not baseline.exists()


def test_embeddings_that_are_not_finite_are_named(encoder, cembench, tmp_path):
    model, metadata = load_checkpoint(encoder)
    weights = model.state_dict()
    weights["net.body.0.weight"].fill_(torch.nan)
    save_checkpoint(tmp_path / "nan" / "model.safetensors", weights, metadata)
    for name in NAMES:
        args = ("--sampler", name, "--out", tmp_path / "x.png")
        result = cembench("sample", tmp_path / "nan", *args)
        assert result.code == 2 and "the output on the initial images is not finite" in result.err
    path = tmp_path / "both.yaml"
    path.write_text(PROTOCOL)
    result = cembench("eval", tmp_path / "nan", "--protocol", path)
    assert "is not finite" in result.out and "nan |" not in result.out.replace("| nan |", "")
