"""Training without labels: encoders that no label has touched, from any interruption."""

from dataclasses import replace

import pytest
import torch

from cembench.data.digits import Digits
from cembench.models.checkpoint import load_checkpoint, weights_digest
from cembench.training.train import train
from cembench.util.errors import CembenchError, ConfigError
from tests.conftest import experiment
from tests.support.stores import FewDigits

METHODS = {
    "infonce": {},
    "adv-infonce": {"negatives": {"steps": 2}},
    "np-jem": {"negatives": {"steps": 2, "buffer": 50}},
}


def unlabelled(name, **changes):
    model = {"name": "small_cnn", "width": 8, "norm": "dual"}
    method = {"name": name, **METHODS[name]}
    values = {"method": method, "model": model, "optimizer": {"name": "adamw", "lr": 0.002}}
    return experiment(**{"data": FewDigits.name, "epochs": 2, **values, **changes})


@pytest.fixture(scope="module", params=METHODS)
def encoder(request, tmp_path_factory):
    """The run of each method: do not write to it."""
    folder = tmp_path_factory.mktemp("encoders") / request.param
    train(unlabelled(request.param), folder)
    return folder


def weights(run):
    return weights_digest(load_checkpoint(run)[0].state_dict())


def test_a_checkpoint_says_that_it_is_an_encoder_and_gives_unit_embeddings(encoder):
    model, metadata = load_checkpoint(encoder)
    assert metadata.kind == "encoder" and metadata.labels == "none"
    assert metadata.method == encoder.name and metadata.head.name == "projection"
    z = model(torch.rand(5, 1, 8, 8))
    assert z.shape == (5, 128) and torch.allclose(z.norm(dim=1), torch.ones(5), atol=1e-5)


def test_labels_change_nothing(encoder, tmp_path, monkeypatch):
    load = Digits.load

    def shuffled(self, split):
        whole = load(self, split)
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(5))
        return replace(whole, labels=whole.labels[order])

    monkeypatch.setattr(Digits, "load", shuffled)
    train(unlabelled(encoder.name), tmp_path / "run")
    assert weights(tmp_path / "run") == weights(encoder)


def test_an_interrupted_run_ends_with_the_same_weights(encoder, tmp_path, monkeypatch):
    from cembench.training.trainer import Trainer

    epoch = Trainer.run_epoch

    def once(self, bar):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return epoch(self, bar)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_epoch", once)
        with pytest.raises(KeyboardInterrupt):
            train(unlabelled(encoder.name), tmp_path / encoder.name)
    train(unlabelled(encoder.name), tmp_path / encoder.name, resume=True)
    file = "model.safetensors"
    assert (tmp_path / encoder.name / file).read_bytes() == (encoder / file).read_bytes()


def test_a_buffer_without_labels_is_one_of_all_images(tmp_path):
    train(unlabelled("np-jem", epochs=1), tmp_path / "run")
    from safetensors.torch import load_file

    assert len(load_file(tmp_path / "run" / "buffer.safetensors")["images"]) == 50


def test_history_has_figures_without_choosing_by_them(encoder):
    import pandas as pd

    history = pd.read_csv(encoder / "history.csv")
    assert {"val_infonce", "val_knn_acc"} <= set(history.columns)
    assert load_checkpoint(encoder)[1].epoch == 2


def test_neighbours_among_held_out_images_are_asked_without_the_image_itself(encoder):
    model, metadata = load_checkpoint(encoder)
    held = metadata.training_split()[1]
    method = unlabelled(encoder.name).method
    alone = replace(held, labels=torch.arange(len(held)), classes=tuple(map(str, range(len(held)))))
    assert method.validation_metrics(model, alone, 0)["val_knn_acc"] == 0
    same = replace(held, labels=torch.zeros(len(held), dtype=torch.long))
    assert method.validation_metrics(model, same, 0)["val_knn_acc"] == 1
    assert set(method.validation_metrics(model, held.take(torch.tensor([3])), 0)) == {"val_infonce"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "compares images with each other, so it needs 2 or more, got 1"),
        ({"select": "robust"}, "select: robust needs labels, which infonce does not use"),
        ({"method": {"name": "infonce", "label_smoothing": 0.1}}, "label_smoothing: unknown key"),
        ({"method": {"name": "infonce", "temperature": 0}}, "method.temperature"),
        ({"method": {"name": "adv-infonce", "stream": "s2s"}}, "method.stream.*'a2a'"),
        ({"method": {"name": "infonce", "views": {"mirrors": True}}}, "did you mean 'mirror'"),
        ({"method": {"name": "np-jem", "projection": {"dimensions": 3}}}, "'dimension'"),
        ({"model": {"name": "small_cnn", "norm": "duel"}}, "model.norm"),
        ({"method": {"name": "adv-infonce", "negatives": "sgld"}}, "sgld leaves the ball"),
        (
            {"method": {"name": "np-jem", "negatives": "maxent"}},
            "maxent draws samples",
        ),
        ({"method": {"name": "jem", "negatives": "infonce"}}, "infonce draws samples"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        experiment(**{"method": "infonce", **changes})


def test_a_network_without_features_is_no_encoder(tmp_path):
    model = {"name": "torchvision", "arch": "resnet18"}
    with pytest.raises(CembenchError, match="has no features"):
        train(experiment(model=model, method="infonce"), tmp_path / "run")


def test_colours_of_grey_images_cannot_change(tmp_path):
    method = {"name": "infonce", "views": {"hue": 0.1}}
    with pytest.raises(CembenchError, match="hue: the images are grey"):
        train(experiment(method=method), tmp_path / "run")


def test_half_precision_leaves_views_as_they_are():
    from cembench.data.views import Views

    x, found = torch.rand(8, 1, 28, 28), []
    for half in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found.append(Views().pair(x)[0])
    assert torch.equal(*found)


def test_embeddings_that_are_not_finite_stop_training(tmp_path):
    with pytest.raises(CembenchError, match=r"loss is (nan|inf)|not finite"):
        train(unlabelled("infonce", optimizer={"lr": 1e30}), tmp_path / "run")
