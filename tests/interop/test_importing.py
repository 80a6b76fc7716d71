"""Networks from elsewhere: which weights fit, which pixels they want, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cembench.api import load
from cembench.data import datasets
from cembench.interop.importing import import_model
from cembench.interop.importing.normalisation import KNOWN, infer_normalisation, normalisation
from cembench.models import models
from cembench.models.metadata import read_metadata
from cembench.util import registry
from cembench.util.errors import CembenchError
from tests.conftest import NOTHING, images

FACTORIES = """
import torch
from torch import nn
from cembench.models.small_cnn import SmallCNN

def small():
    return SmallCNN(width=8).build((1, 8, 8), 10)

class Scaled(nn.Module):
    def __init__(self, net, scale, shift):
        super().__init__()
        self.net, self.scale, self.shift = net, scale, shift

    def forward(self, x):
        return self.net(x * self.scale + self.shift)

def wants(scale, shift):
    return Scaled(small(), scale, shift)

def softmax():
    return nn.Sequential(small(), nn.Softmax(1))

def log_softmax():
    return nn.Sequential(small(), nn.LogSoftmax(1))

class Moody(nn.Module):
    made = 0

    def __init__(self):
        super().__init__()
        Moody.made += 1
        self.net, self.mood = small(), Moody.made

    def forward(self, x):
        return self.net(x) * self.mood

def fails():
    raise OSError("the disk on my laptop is not here")

def returns_text():
    return "a network"

def wide():
    return SmallCNN(width=4).build((1, 8, 8), 10)

number = 3
"""


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A module of a user's, importable as `elsewhere`, that nobody named yet."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "elsewhere.py").write_text(FACTORIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(registry, "_trusted", set())
        yield


@pytest.fixture(scope="module")
def weights(trained: Path) -> dict[str, torch.Tensor]:
    """What the net inside the trained classifier holds."""
    return load(trained).net.state_dict()


@pytest.fixture(scope="module")
def pixels(trained: Path) -> str:
    metadata = read_metadata(trained / "model.safetensors")
    return f"{metadata.mean[0]}/{metadata.std[0]}"


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "kept",
    [
        lambda state: state,
        lambda state: prefixed("module.", state),
        lambda state: prefixed("module.model.", state),
        lambda state: {"state_dict": prefixed("model.", state), "epoch": 7},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
        lambda state: {k: v.double() if v.is_floating_point() else v for k, v in state.items()},
    ],
)
def test_usual_state_dicts_give_the_same_network(
    kept: Any, weights: dict[str, torch.Tensor], pixels: str, trained: Path, tmp_path: Path
) -> None:
    torch.save(kept(weights), tmp_path / "w.pt")
    file = import_model(
        "elsewhere:small", "digits", tmp_path / "w.pt", tmp_path / "run", normalise=pixels
    )
    x = images()
    assert torch.allclose(load(file)(x), load(trained)(x), atol=1e-6)
    assert load(file).metadata.model.title == "small"


def test_safetensors_and_prefixes_of_the_network(
    weights: dict[str, torch.Tensor], pixels: str, tmp_path: Path
) -> None:
    save_file(
        {key: value.contiguous() for key, value in weights.items()}, tmp_path / "w.safetensors"
    )
    args = {"scale": 1.0, "shift": 0.0}
    wrapped = {"name": "factory", "target": "elsewhere:wants", "args": args}
    file = import_model(wrapped, "digits", tmp_path / "w.safetensors", tmp_path, normalise=pixels)
    assert file == tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", [*(n for n, (m, _) in KNOWN.items() if len(m) == 1), "data"])
def test_normalisation_is_inferred(
    name: str, weights: dict[str, torch.Tensor], trained: Path, tmp_path: Path
) -> None:
    whole = datasets.parse("digits").load("train")
    metadata = read_metadata(trained / "model.safetensors")
    (mean,), (std,) = (values.tolist() for values in normalisation(name, whole))
    # A network that undoes this normalisation, and then does its own, wants exactly this one.
    args = {"scale": std / metadata.std[0], "shift": (mean - metadata.mean[0]) / metadata.std[0]}
    torch.save(prefixed("net.", weights), tmp_path / "w.pt")
    settings = {"name": "factory", "target": "elsewhere:wants", "args": args}
    file = import_model(settings, "digits", tmp_path / "w.pt", tmp_path / "run")
    found = read_metadata(file)
    assert found.mean == pytest.approx([mean]) and found.std == pytest.approx([std])
    assert f"with {name};" in found.origin
    assert torch.allclose(load(file)(images()), load(trained)(images()), atol=1e-3)


def test_pixels_that_the_network_does_not_take_are_refused(
    weights: dict[str, torch.Tensor], trained: Path, tmp_path: Path, cembench: Any
) -> None:
    metadata = read_metadata(trained / "model.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    std = 0.5 / metadata.std[0]
    args = {"scale": std, "shift": (0.5 - metadata.mean[0]) / metadata.std[0]}
    model = f"{{name: factory, target: 'elsewhere:wants', args: {args}}}".replace("'", '"')
    given = ["import", "--model", model, "--weights", tmp_path / "w.pt", "--dataset", "digits"]
    code, _, err = cembench(*given, "--normalise", "none", "--out", tmp_path / "run")
    assert code == 2 and "use --normalise half" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert cembench(*given, "--normalise", "half", "--out", tmp_path / "run").code == 0


def test_a_network_no_better_than_chance_needs_its_normalisation(tmp_path: Path) -> None:
    with pytest.raises(CembenchError, match="better than chance"):
        import_model("elsewhere:small", "digits", None, tmp_path / "run")
    assert import_model(
        "elsewhere:small", "digits", None, tmp_path / "run", normalise="none"
    ).exists()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_probabilities_are_no_logits(
    name: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(prefixed("0.", weights), tmp_path / "w.pt")
    with pytest.raises(CembenchError, match="probabilities, not logits; leave out the softmax"):
        import_model(f"elsewhere:{name}", "digits", tmp_path / "w.pt", tmp_path / "run")


def broken(state: dict[str, torch.Tensor], change: str) -> Any:
    state = dict(state)
    if change == "renamed":
        state["head.wieght"] = state.pop("head.weight")
    elif change == "surplus":
        state["header.weight"] = state["head.weight"]
    elif change == "shape":
        state["head.weight"] = state["head.weight"][:, :-1]
    elif change == "nan":
        state["head.bias"] = state["head.bias"] * torch.nan
    elif change == "nothing inside":
        return {"epoch": 3, "acc": 0.9}
    elif change == "list":
        return [1, 2, 3]
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("renamed", r"misses head.weight \(nearest: head.wieght\)"),
        ("surplus", r"holds header.weight \(nearest: head.weight\) that it has no use for"),
        ("shape", r"head.weight is \(10, 127\), and the network wants \(10, 128\)"),
        ("nan", "head.bias is not finite"),
        ("nothing inside", "no state dict: it holds epoch, acc"),
        ("list", "no state dict, but a list"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    change: str, message: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(broken(weights, change), tmp_path / "w.pt")
    with pytest.raises(CembenchError, match=message):
        import_model("elsewhere:small", "digits", tmp_path / "w.pt", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_weights_are_refused(trained: Path, tmp_path: Path) -> None:
    def refused(content: Any, message: str) -> None:
        path = tmp_path / "w.pt"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(CembenchError, match=message):
            import_model("elsewhere:small", "digits", path, tmp_path / "run")

    refused(load(trained), "holds more than tensors, and could run code")
    refused(b"not weights at all", "neither safetensors nor a file of torch.save")
    refused(b"", "neither safetensors")
    whole = (trained / "last.ckpt").read_bytes()
    refused(whole[: len(whole) // 2], "neither safetensors")
    with pytest.raises(CembenchError, match="cannot read"):
        import_model("elsewhere:small", "digits", tmp_path / "none.pt", tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("elsewhere:fails", "raised OSError.*the disk on my laptop is not here"),
        ("elsewhere:returns_text", "returned str, not a torch.nn.Module"),
        ("elsewhere:smal", "has no 'smal'; did you mean 'small'"),
        ("elsewhere:number", "is a int, not a function or class"),
        ("nowhere_at_all:net", "cannot be imported"),
        ("elsewhere:", "--model"),
        ("smal_cnn", "did you mean 'small_cnn'"),
        ("small_cnn", "--weights: small_cnn has none of its own"),
        ("torchvision:resnet", "unknown 'resnet'"),
        ("timm:hf-hub:someone/net", "--model"),
        ("{name: factory, targt: a:b}", "did you mean 'target'"),
    ],
)
def test_networks_that_cannot_be_built_are_named(
    model: str, message: str, cembench: Any, tmp_path: Path
) -> None:
    run, given = tmp_path / "run", ["--model", model, "--dataset", "digits"]
    if model.startswith("torchvision"):
        torch.save({"weight": torch.zeros(1)}, tmp_path / "w.pt")
        given += ["--weights", tmp_path / "w.pt"]
    code, out, err = cembench("import", *given, "--out", run)
    assert code == 2 and err.count("\n") == 1 and out == ""
    assert __import__("re").search(message, err), err
    assert not run.exists()


def test_a_network_that_cannot_be_built_again_alike_is_refused(
    weights: dict[str, torch.Tensor], pixels: str, tmp_path: Path
) -> None:
    torch.save(prefixed("net.", weights), tmp_path / "w.pt")
    with pytest.raises(CembenchError, match=r"built again .* answers otherwise"):
        import_model("elsewhere:Moody", "digits", tmp_path / "w.pt", tmp_path, normalise=pixels)


def test_only_the_user_lets_code_run(
    weights: dict[str, torch.Tensor], tmp_path: Path, cembench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(weights, tmp_path / "w.pt")
    run = tmp_path / "run"
    import_model("elsewhere:small", "digits", tmp_path / "w.pt", run)
    small = [part for override in NOTHING[1:] for part in ("--set", override)]
    again = ["eval", run, "--limit", 20, "--set", "attacks=[{name: pgd, steps: 2}]", *small]
    monkeypatch.setattr(registry, "_trusted", set())
    code, _, err = cembench(*again)
    assert code == 2 and "if you trust it, add --plugin elsewhere" in err
    code, out, _ = cembench(*again, "--plugin", "elsewhere")
    assert code == 0 and "| run | imported |" in out


def test_eval_takes_the_options_of_import(
    weights: dict[str, torch.Tensor], tmp_path: Path, cembench: Any
) -> None:
    torch.save(weights, tmp_path / "w.pt")
    given = ["--model", "elsewhere:small", "--weights", tmp_path / "w.pt", "--dataset", "digits"]
    given += ["--eps", "0.05", "--method", "mine", "--out", tmp_path / "run"]
    small = [part for override in NOTHING[1:] for part in ("--set", override)]
    plan = ["--limit", 20, "--set", "attacks=[{name: pgd, steps: 2}]", *small]
    for _ in range(2):
        code, out, err = cembench("eval", *given, *plan)
        assert code == 0 and "linf-0.05" in out and "| mine |" in out, err
        assert "normalisation recognised" in err
    code, _, err = cembench("eval", "--weights", tmp_path / "w.pt", *plan)
    assert code == 2 and "--model: say it too" in err
    assert cembench("eval", *plan).code == 2


def test_another_checkpoint_is_never_overwritten(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "w.pt")
    file = import_model("elsewhere:small", "digits", tmp_path / "w.pt", tmp_path / "run")
    before = file.read_bytes()
    with pytest.raises(CembenchError, match="another checkpoint is there"):
        import_model("elsewhere:small", "digits", tmp_path / "w.pt", file, method="other")
    assert file.read_bytes() == before


@pytest.mark.parametrize(("name", "arch"), [("torchvision", "resnet18"), ("timm", "resnet18")])
def test_architectures_of_other_packages(name: str, arch: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    net = models.parse({"name": name, "arch": arch}).build((3, 32, 32), 10).eval()
    state = {key.removeprefix("1."): value for key, value in net.state_dict().items()}
    torch.save({"state_dict": prefixed("module.", state)}, tmp_path / "w.pt")
    pixels, labels = torch.rand(40, 3, 32, 32), torch.arange(40) % 10
    root = folder_of(tmp_path / "data", pixels, labels)
    file = import_model(
        f"{name}:{arch}", root, tmp_path / "w.pt", tmp_path / "run", normalise="imagenet"
    )
    x = pixels[:2]
    mean, std = normalisation("imagenet", datasets.parse(root).load("train"))
    expected = net((x - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1))
    assert torch.allclose(load(file)(x), expected, atol=1e-4)
    assert read_metadata(file).model.title == arch


def folder_of(root: Path, pixels: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Write images as a user's folder, and return the settings that read it."""
    from torchvision.utils import save_image

    for split in ("train", "test"):
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = root / split / str(int(label)) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(image, path)
    return {"name": "folder", "root": str(root)}


def test_inference_never_looks_at_test_images(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    kind = type(datasets.parse("digits"))
    real = kind.load

    def guarded(self: Any, split: str) -> Any:
        assert split == "train"
        return real(self, split)

    monkeypatch.setattr(kind, "load", guarded)
    torch.save(weights, tmp_path / "w.pt")
    assert import_model("elsewhere:small", "digits", tmp_path / "w.pt", tmp_path / "run").exists()


def test_inference_leaves_the_network_as_it_was(trained: Path) -> None:
    net = load(trained).net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    whole = datasets.parse("digits").load("train")
    infer_normalisation(net, whole, "auto")
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
