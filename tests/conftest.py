"""What tests share: one thread, small networks, one trained checkpoint, a way to call the CLI."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from torch import Tensor, nn

from cembench.cli import main
from cembench.suites.launchers import local
from cembench.training.config import Experiment, parse_experiment
from cembench.training.train import train
from tests.support.disk import Disk

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background jobs ignore it

TINY = {
    "data": "digits",
    "model": {"name": "small_cnn", "width": 8},
    "method": {"name": "at", "negatives": {"steps": 3}},
    "epochs": 3,
    "batch_size": 128,
}

NOTHING = ["attacks=[]", "samples=null", "density=null", "sanity=null", "curve=null"]


def pytest_collection_finish() -> None:
    """Spare the garbage collector all that was imported, and forks a copy of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Let the process that asks first make a folder, and the others wait for it."""
    folder.parent.mkdir(exist_ok=True)
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(shared: Path) -> Iterator[None]:
    """Keep reference features of tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cembench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call the command line in this process; what it runs side by side are forks of it.

    They are on a command line, too, where no thread of pytest-xdist is in the way.
    """
    monkeypatch.setattr(local, "may_fork", lambda: True)

    def call(*args: object) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        return Result(result.exit_code, result.stdout, result.stderr)

    return call


def experiment(**changes: object) -> Experiment:
    return parse_experiment({**TINY, **changes}, "test")


@pytest.fixture(scope="session")
def trained(shared: Path) -> Path:
    """A run folder of a small robust network; do not write to it."""
    return made_once(shared / "trained" / "tiny", partial(train, experiment()))


@pytest.fixture(scope="session")
def undefended(shared: Path) -> Path:
    """A run folder of a small network that is not robust; do not write to it."""
    return made_once(shared / "undefended" / "run", partial(train, experiment(method="standard")))


@pytest.fixture(scope="session")
def encoder(shared: Path) -> Path:
    """A run folder of InfoNCE; do not write to it."""
    adamw = {"name": "adamw", "lr": 0.003}
    settings = experiment(method="infonce", epochs=4, optimizer=adamw)
    return made_once(shared / "encoders" / "infonce", partial(train, settings))


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """The checkpoint of `trained` in a run folder of its own."""
    path = tmp_path / "run" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes((trained / "model.safetensors").read_bytes())
    return path


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A small disk to fill or protect."""
    disk = Disk(tmp_path / "disk", monkeypatch)
    yield disk
    monkeypatch.undo()
    disk.close()


@pytest.fixture
def short_autoattack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten AutoAttack, for tests of what surrounds it rather than of its strength."""
    shorten_autoattack(monkeypatch, steps=8, queries=60)


def shorten_autoattack(monkeypatch: pytest.MonkeyPatch, steps: int, queries: int) -> None:
    """Give the official AutoAttack and the fast one fewer steps, and Square fewer queries."""
    import pyautoattack

    import cembench.attacks.autoattack_fast as fast

    class Short(pyautoattack.AutoAttack):  # type: ignore[misc, name-defined]
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            for attack in (self.apgd, self.apgd_targeted, self.fab):
                attack.n_iter = attack.n_iter_orig = steps  # the latter counts in ℓ1
            self.square.n_queries = queries

    monkeypatch.setattr(pyautoattack, "AutoAttack", Short)
    for name in ("apgd", "targeted_apgd", "targeted_fab"):
        monkeypatch.setattr(fast, name, partial(getattr(fast, name), steps=steps))
    monkeypatch.setattr(fast, "square", partial(fast.square, queries=queries))


class Linear(nn.Module):
    """Logits W x + b of flattened images: its robust accuracy has a closed form."""

    def __init__(self, pixels: int, classes: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, pixels, generator=generator))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def conv_net(seed: int = 0, channels: int = 1, classes: int = 10) -> nn.Module:
    """A small network with batch norm and dropout, so that modes and buffers matter."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(8 * 64, classes),
    )


def images(count: int = 16, channels: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, 8, 8, generator=generator)


def labels(count: int = 16, classes: int = 10) -> Tensor:
    return torch.arange(count) % classes
