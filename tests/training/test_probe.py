"""Probes: ordinary classifiers on the features of another run, by the rules of the literature."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.neighbors import KNeighborsClassifier

from cembench.models.checkpoint import load_checkpoint, save_checkpoint
from cembench.models.classifier import build_classifier
from cembench.models.heads import Neighbours
from cembench.models.metadata import CheckpointMetadata, read_metadata
from cembench.models.recipe import recipe_of
from cembench.suites.suite import load_suite
from cembench.training.probes import MODES, probe_experiment
from cembench.training.train import train
from cembench.util.errors import CembenchError, ConfigError
from tests.conftest import NOTHING, experiment

SHORT = {"epochs": 2, "optimizer": {"lr": 0.05}}
WEAK = {"method": {"negatives": {"steps": 2}}}


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A folder of ten classes of colour images."""
    folder = tmp_path_factory.mktemp("colours")
    for split, name, image in itertools.product(("train", "test"), "0123456789", range(2)):
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        shade = (int(name) * 20, 20 * image, 90)
        Image.new("RGB", (32, 32), shade).save(folder / split / name / f"{image}.png")
    return folder


def fit(encoder, mode, folder, **overrides):
    given = {} if mode == "knn" else SHORT
    train(probe_experiment(encoder, mode, {**given, **overrides}), folder, resume=True)
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_every_probe_is_a_classifier_that_eval_sample_and_check_take(
    cembench, encoder, tmp_path, mode
):
    run = fit(encoder, mode, tmp_path / mode, **(WEAK if mode.startswith("adv") else {}))
    model, metadata = load_checkpoint(run)
    assert metadata.kind == "classifier" and metadata.finished
    assert metadata.labels == ("all" if "finetune" in mode else "probe")
    assert metadata.method == f"infonce+{mode}"
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    before, after = load_file(encoder / "model.safetensors"), load_file(run / "model.safetensors")
    body = [key for key in before if not key.startswith("net.head.")]
    same = [torch.equal(before[key], after[key]) for key in body]
    assert all(same) == ("finetune" not in mode) and len(body) > 10
    short = [*NOTHING[1:], 'attacks=[{"name": "pgd", "steps": 2}]']
    sets = [part for change in short for part in ("--set", change)]
    assert cembench("eval", run, "--limit", 40, *sets).code == 0
    picture = tmp_path / "grid.png"
    assert cembench("sample", run, "-n", 10, "--steps", 2, "--out", picture).code == 0
    baseline = tmp_path / "baseline.yaml"
    update = ("--update", "--protocol", "quick", "--limit", 40)
    assert cembench("check", run, "--baseline", baseline, *update, *sets).code == 0
    assert cembench("check", run, "--baseline", baseline).code in (0, 2)


def test_the_command_names_the_run_and_resumes(cembench, encoder, tmp_path):
    options = ("--out", tmp_path, "--set", "epochs=1", "--mode", "adv-linear")
    result = cembench("probe", encoder, *options)
    expected = tmp_path / "infonce-adv-linear" / "model.safetensors"
    assert result.code == 0 and result.out.strip() == str(expected)
    assert "a run is there already" in cembench("probe", encoder, *options).err
    assert cembench("probe", encoder, *options, "--resume").code == 0
    few = ("--mode", "knn", "--set", "method.votes.neighbours=3", "--out", tmp_path)
    assert cembench("probe", encoder, *few).code == 0
    assert load_checkpoint(tmp_path / "infonce-knn")[0].net.head.neighbours == 3


def test_a_probe_learns_something(encoder, tmp_path):
    import pandas as pd

    history = pd.read_csv(fit(encoder, "linear", tmp_path / "a") / "history.csv")
    assert history["val_clean_acc"].iloc[-1] > 0.5


def test_gradients_of_both_trainings_are_counted(encoder, tmp_path):
    first = read_metadata(encoder / "model.safetensors").gradients
    found = read_metadata(fit(encoder, "linear", tmp_path / "a") / "model.safetensors").gradients
    assert first == 4 * 8 * 128 * 2 and found == first + 2 * 8 * 128


def test_neighbours_vote_as_scikit_learn_counts_them(encoder, tmp_path):
    model, metadata = load_checkpoint(fit(encoder, "knn", tmp_path / "knn"))
    train_split, _ = metadata.training_split()
    test = metadata.images("test")
    with torch.no_grad():
        known, asked = (model.features(split.pixels()) for split in (train_split, test))
        votes = model(test.pixels()).softmax(1)
    theirs = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1)
    ).fit(known, train_split.labels)
    expected = torch.from_numpy(theirs.predict_proba(asked)).float()
    assert torch.allclose(votes, expected, atol=1e-3)
    assert (votes.argmax(1) == test.labels).float().mean() > 0.7


def test_votes_are_finite_and_have_gradients_far_from_every_neighbour():
    head = Neighbours(neighbours=3).build(4, 5)
    head.keep(torch.eye(4), torch.tensor([0, 0, 1, 2]))
    x = torch.tensor([[-1.0, -0.2, 0.1, 0.4]], requires_grad=True)
    out = head(x)
    assert out.isfinite().all() and out[0, 3] == out[0, 4] < out[0, 2]
    (gradient,) = torch.autograd.grad(out[0, 2], x)
    assert gradient.abs().sum() > 0


def test_a_classifier_can_be_probed_too(trained, tmp_path):
    run = fit(trained, "linear", tmp_path / "probe")
    metadata = read_metadata(run / "model.safetensors")
    assert metadata.method == "at+linear" and metadata.labels == "all"


def test_the_encoder_is_known_by_its_weights_not_by_its_place(encoder, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    content = (encoder / "model.safetensors").read_bytes()
    (moved / "model.safetensors").write_bytes(content)
    run = fit(encoder, "linear", tmp_path / "probe")
    assert fit(moved, "linear", run) == run
    model, metadata = load_checkpoint(moved)
    with torch.no_grad():
        model.net.body[0].weight += 0.01
    save_checkpoint(moved / "model.safetensors", model.state_dict(), metadata)
    with pytest.raises(
        CembenchError, match=r"begun with another configuration: pretrained\.weights"
    ):
        fit(moved, "linear", run)


def edited(encoder, folder, change=None, **metadata):
    model, known = load_checkpoint(encoder)
    weights = model.state_dict()
    if change:
        change(weights)
    folder.mkdir()
    path = folder / "model.safetensors"
    save_checkpoint(path, weights, known.model_copy(update=metadata))
    return folder


@pytest.mark.parametrize(
    ("start", "own", "frozen", "expected"),
    [
        ("none", "infonce", False, "none"),
        ("none", "infonce", True, "none"),
        ("all", "infonce", False, "all"),
        ("probe", "infonce", False, "none"),
        ("none", "standard", True, "probe"),
        ("none", "standard", False, "all"),
        ("probe", "standard", True, "probe"),
        ("all", "standard", True, "all"),
    ],
)
def test_what_was_known_of_labels_follows_the_weights(start, own, frozen, expected):
    pretrained = {"checkpoint": "x", "frozen": frozen, "labels": start}
    assert experiment(method=own, pretrained=pretrained).labels == expected


def test_neighbours_do_not_ask_an_average_of_weights(encoder, tmp_path):
    model, metadata = load_checkpoint(fit(encoder, "knn", tmp_path / "knn", ema=0.9))
    assert len(model.net.head.bank) == len(metadata.training_split()[0])


def test_what_cannot_be_probed_is_named(encoder, tmp_path):
    unfinished = edited(encoder, tmp_path / "a", finished=False)
    with pytest.raises(CembenchError, match="not finished; --resume it first"):
        fit(unfinished, "linear", tmp_path / "x")
    broken = edited(encoder, tmp_path / "b", lambda w: w["net.body.0.weight"].fill_(torch.nan))
    for mode in ("linear", "knn"):
        with pytest.raises(CembenchError, match="weights are not finite"):
            fit(broken, mode, tmp_path / f"x{mode}")
    foreign = edited(encoder, tmp_path / "c", config={})
    with pytest.raises(CembenchError, match="says nothing of its training"):
        fit(foreign, "linear", tmp_path / "y")
    with pytest.raises(CembenchError, match="cannot read"):
        fit(tmp_path / "none", "linear", tmp_path / "z")


@pytest.mark.parametrize(("arch", "mode"), [("mobilenet_v3_small", "knn"), ("swin_t", "linear")])
def test_a_network_without_features_has_nothing_to_probe(tmp_path, arch, mode, colours):
    data = {"name": "folder", "root": str(colours)}
    config = experiment(method="standard", model={"name": "torchvision", "arch": arch}, data=data)
    split = config.data.load("train")
    net = build_classifier(config.model, split.shape, 10)
    told = {"mean": [0.0] * 3, "std": [1.0] * 3, "data": config.data, "threat": config.threat}
    metadata = CheckpointMetadata(
        model=config.model,
        shape=[3, 32, 32],
        classes=list("0123456789"),
        method="standard",
        finished=True,
        fingerprint=split.fingerprint,
        config=config.dump(),
        **told,
    )
    save_checkpoint(tmp_path / "net" / "model.safetensors", net.state_dict(), metadata)
    with pytest.raises(CembenchError, match="has no features"):
        fit(tmp_path / "net", mode, tmp_path / mode, data={"root": str(colours)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "small_cnn", "width": 4}}, "'width': 8.*, not a .*'width': 4"),
        ({"validation": {"fraction": 0.2}}, "held out 0.1 of the training images"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_settings_that_do_not_fit_the_encoder_are_named(encoder, tmp_path, changes, message):
    with pytest.raises(CembenchError, match=message):
        fit(encoder, "linear", tmp_path / "run", **changes)


def test_neighbours_need_features_that_are_there():
    with pytest.raises(ConfigError, match="knn trains nothing: give it pretrained"):
        experiment(method="knn")


def test_a_head_fitted_on_other_classes_is_refused(cembench, encoder, tmp_path):
    run = fit(encoder, "linear", tmp_path / "run")
    model, metadata = load_checkpoint(run)
    other = metadata.model_copy(update={"classes": list("abcdefghij")})
    save_checkpoint(tmp_path / "other" / "model.safetensors", model.state_dict(), other)
    result = cembench("eval", tmp_path / "other")
    assert result.code == 2 and "classes are" in result.err and len(result.err.splitlines()) == 1
    fewer = metadata.model_copy(update={"classes": list("abc")})
    save_checkpoint(tmp_path / "fewer" / "model.safetensors", model.state_dict(), fewer)
    assert "classes are" in cembench("eval", tmp_path / "fewer").err
    with pytest.raises(CembenchError, match="does not fit its architecture"):
        load_checkpoint(tmp_path / "fewer")


SUITE = """
protocol: quick
seeds: [0, 1]
shared: {data: digits, model: {name: small_cnn, width: 8}, epochs: 1}
experiments:
  infonce: {method: infonce}
  linear: {probe: infonce, epochs: 3}
  robust: {probe: {of: infonce, mode: adv-linear}, method: {negatives: {steps: 3}}}
"""


def test_a_suite_probes_what_it_trained(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    found, _ = load_suite(path, tmp_path / "runs")
    assert list(found) == [f"{n}.s{s}" for n in ("infonce", "linear", "robust") for s in (0, 1)]
    assert found["linear.s1"].pretrained.checkpoint == str(tmp_path / "runs" / "infonce.s1")
    assert found["linear.s1"].epochs == 3 and found["linear.s1"].seed == 1
    assert found["robust.s0"].method.name == "at" and found["robust.s0"].method.negatives.steps == 3
    assert found["robust.s0"].title == "infonce+adv-linear"
    assert found["robust.s0"].labels == "probe"
    one, two = (recipe_of(found[f"linear.s{seed}"].dump()) for seed in (0, 1))
    assert one == two != recipe_of(found["robust.s0"].dump())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("probe: infonce", "probe: infonse", "no experiment 'infonse' above; did you mean"),
        ("mode: adv-linear", "mode: adv-liner", "probe.mode: input should be 'linear'"),
        ("epochs: 3", "epoch: 3", "unknown key; did you mean 'epochs'"),
        ("of: infonce", "off: infonce", "probe.off: unknown key; did you mean 'of'"),
    ],
)
def test_mistakes_in_a_suite_of_probes_are_named(tmp_path, old, new, message):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace(old, new))
    with pytest.raises(ConfigError, match=message) as error:
        load_suite(path)
    assert "suite.yaml, experiment" in str(error.value)


def test_probes_of_an_encoder_that_gave_up_are_rows(cembench, tmp_path):
    short = tmp_path / "short.yaml"
    short.write_text("{limit: 40, attacks: [{name: pgd, steps: 2}]}")
    path = tmp_path / "suite.yaml"
    wild = "{method: infonce, optimizer: {lr: 1.0e+30}}"
    text = SUITE.replace("quick", "short.yaml").replace("{method: infonce}", wild)
    path.write_text(text.replace("seeds: [0, 1]\n", ""))
    result = cembench("run", path, "--out", tmp_path / "runs")
    assert result.code == 2 and "which it starts from, gave up" in result.err
    assert "| linear | infonce+linear | probe |" in result.out
    assert "| infonce |" not in result.out


def test_a_suite_of_encoders_alone_says_that_nothing_was_measured(cembench, tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.split("  linear:")[0].replace("seeds: [0, 1]\n", ""))
    result = cembench("run", path, "--out", tmp_path / "runs")
    assert result.code == 0 and "nothing was measured" in result.err


def test_a_suite_of_encoders_and_probes_runs_whole(cembench, tmp_path):
    short = tmp_path / "short.yaml"
    short.write_text("{limit: 40, attacks: [{name: pgd, steps: 2}]}")
    path = tmp_path / "suite.yaml"
    text = SUITE.replace("quick", "short.yaml").replace("epochs: 3", "epochs: 1")
    path.write_text(text.replace("method: {neg", "epochs: 1, method: {neg"))
    result = cembench("run", path, "--out", tmp_path / "runs")
    assert result.code == 0, result.err
    assert "| infonce+linear | probe |" in result.out
    means = (tmp_path / "runs/leaderboards/digits-linf-0.125-seeds.md").read_text()
    assert "| linear | infonce+linear | probe | 2 |" in means
    assert not (tmp_path / "runs" / "infonce.s0" / "eval").exists()
    again = cembench("run", path, "--out", tmp_path / "runs")
    assert again.code == 0 and again.out == result.out
