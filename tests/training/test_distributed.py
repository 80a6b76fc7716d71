"""Training in several processes: the loss of one process, its weights after a kill, clear words."""

import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cembench.models.sync_batchnorm import synchronise
from cembench.training.ddp import batch_generator
from cembench.training.train import train
from cembench.training.trainer import Trainer
from cembench.training.validation import validate
from cembench.util.files.yaml import to_yaml
from cembench.util.processes.distributed import world
from cembench.util.rng import SharedGenerator, integers, normal, rank_generator, uniform
from tests.conftest import conv_net, experiment, images, labels
from tests.support.ranks import (
    LIMIT,
    Place,
    called,
    finished,
    forked_torchrun,
    free_port,
    ranks,
    start,
    together,
    torchrun,
)

STEPS = {"negatives": {"steps": 3}}
JEM = {"name": "jem", "negatives": {"name": "sgld", "steps": 2, "buffer": 50}}
DAT = {
    "name": "dat",
    "first_stage": 0,
    "contrast": {"steps": 3},
    "window": 1,
    "separable": 0.01,
    "augment": {"cutout": 3},
    **STEPS,
}
VARIED = {"data": {"name": "digits", "crop": 1, "flip": True}, "ema": 0.9}
CASES = {
    "standard": {"method": "standard", **VARIED},
    "at": {"method": {"name": "at", **STEPS}, **VARIED},
    "at-l2": {"method": {"name": "at", **STEPS}, "threat": {"norm": "l2", "eps": 0.5}},
    "trades": {"method": {"name": "trades", **STEPS}, **VARIED},
    "awp": {"method": {"name": "at", "weights": "awp", **STEPS}, **VARIED},
    "dat": {"method": DAT, **VARIED},
    "infonce": {"method": "infonce"},
    "adv-infonce": {"method": {"name": "adv-infonce", **STEPS}},
    "a2s": {"method": {"name": "adv-infonce", "stream": "a2s", **STEPS}},
    "np-jem": {"method": {"name": "np-jem", "negatives": {"name": "pgd", "steps": 2}}},
}


FEW = {"validation": {"images": 70, "steps": 2}, "batch_size": 32, "threat": {"eps": 0.02}}


def write(folder, name="c", **changes):
    path = folder / f"{name}.yaml"
    path.write_text(to_yaml(experiment(**changes).dump()))
    return path


def history(folder):
    return pd.read_csv(folder / "history.csv")


def losses(settings, steps=3):
    """Take a few steps and return their losses."""
    trainer = Trainer(settings, torch.device("cpu"))
    trainer.wrap_ddp()
    generator = batch_generator(0, trainer.device, trainer.world)
    batch = trainer.batch
    order = torch.arange(steps * batch).expand(len(settings.method.branches), -1)
    read = trainer.feed.read(order, 0)
    return [float(trainer.step(step, one, generator)["loss"]) for step, one in enumerate(read)]


def validated(**changes):
    """Return the validation metrics of a network that is trained for a few steps."""
    trainer = Trainer(experiment(method="standard", **FEW, **changes), torch.device("cpu"))
    trainer.wrap_ddp()
    generator = batch_generator(0, trainer.device, trainer.world)
    order = torch.arange(20 * trainer.batch)[None]
    for step, one in enumerate(trainer.feed.read(order, 0)):
        trainer.step(step, one, generator)
    found = trainer._validated()
    assert 0.2 < found["val_pgd_acc"] < found["val_clean_acc"]
    return found


def test_processes_share_validation_and_find_what_one_process_finds(tmp_path):
    network = Trainer(experiment(method="standard", **FEW), torch.device("cpu"))
    given = network.model, network.held, network.config, 32
    alone = validate(*given)

    def work():
        return validate(*given, world()), validated(), validated(batch_norm="local")

    first, second = together(tmp_path, work)
    assert first == second and first[0] == alone


@pytest.mark.parametrize("case", CASES)
def test_each_step_has_the_loss_of_one_process(case, tmp_path):
    settings = experiment(**CASES[case], batch_size=64)
    alone = losses(settings)
    first, second = together(tmp_path, lambda: losses(settings))
    assert first == second
    # rounding turns signs of the small gradients that images have of each other's losses
    assert first[0] == pytest.approx(alone[0], rel=1e-4 if case == "adv-infonce" else 1e-5)
    assert first == pytest.approx(alone, rel=1e-2)


def as_users_start(*args, out):
    """Return what torchrun and its processes printed, which take long to import everything."""
    result = finished(torchrun(*args))
    assert result.code == 0, result.err
    return result.out + result.err


def as_forks(*args, out):
    """Return what torchrun and its processes printed, all of which are forks of this one."""
    process = forked_torchrun(*args, out=out)
    assert process.wait() == 0, out.read_text()
    return out.read_text()


@pytest.mark.parametrize("start", [as_forks, pytest.param(as_users_start, marks=pytest.mark.slow)])
def test_torchrun_trains_the_weights_of_one_process_and_only_one_process_speaks(tmp_path, start):
    changes = {"epochs": 2, "method": "standard"}
    alone = train(experiment(**changes), tmp_path / "alone")
    config = write(tmp_path, **changes)
    said = start("train", config, "--out", tmp_path, out=tmp_path / "out.txt")
    assert said.count(f"{tmp_path / 'c' / 'model.safetensors'}\n") == 1
    assert said.count("epoch 2/2") == 1
    pairs = [history(path)["loss"].tolist() for path in (tmp_path / "c", alone.parent)]
    assert pairs[0] == pytest.approx(pairs[1], rel=1e-5)
    weights = load_file(alone)
    for key, value in load_file(tmp_path / "c" / "model.safetensors").items():
        torch.testing.assert_close(value, weights[key], rtol=1e-3, atol=1e-4)


def test_torchrun_goes_on_by_itself_after_a_crash(tmp_path):
    config, table = write(tmp_path, epochs=4), tmp_path / "c" / "history.csv"
    out, options = tmp_path / "out.txt", ["--max-restarts=1"]
    process = forked_torchrun("train", config, "--out", tmp_path, options=options, out=out)
    deadline = time.monotonic() + LIMIT
    while not (table.exists() and len(history(table.parent)) > 1):
        assert time.monotonic() < deadline and not process.ended, out.read_text()
        time.sleep(0.02)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    assert process.wait() == 0, out.read_text()
    assert history(table.parent)["epoch"].tolist() == list(range(1, 5))
    said = out.read_text()
    assert said.count("c: 2 processes share") == 2 and said.count("epoch 1/4") == 1


def test_processes_save_and_leave_when_torchrun_is_killed(tmp_path, monkeypatch):
    step = Trainer.step

    def slowly(self, *given):
        time.sleep(0.1)
        return step(self, *given)

    monkeypatch.setattr(Trainer, "step", slowly)
    config, out = write(tmp_path, method="standard", epochs=9), tmp_path / "out.txt"
    process = forked_torchrun("train", config, "--out", tmp_path, out=out)
    deadline = time.monotonic() + LIMIT
    while not (tmp_path / "c" / "history.csv").exists():
        assert time.monotonic() < deadline and not process.ended, out.read_text()
        time.sleep(0.02)
    time.sleep(0.3)  # in the second epoch
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send(signal.SIGKILL)
    process.wait()
    while any(_runs(int(child)) for child in children):
        assert time.monotonic() < deadline, out.read_text()
        time.sleep(0.02)
    assert (tmp_path / "c" / "midway.ckpt").exists()
    assert out.read_text().count("terminated; what was finished is kept") == 1


def _runs(process):
    """Return whether a process runs: it has not ended, nor waits to be asked for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_batch_norm_of_each_process_alone_is_another_training(tmp_path):
    settings = experiment(method="standard", batch_norm="local")
    (first, _), alone = together(tmp_path, lambda: losses(settings)), losses(settings)
    assert abs(first[0] / alone[0] - 1) > 1e-4


def exchanges(method):
    """Return how often a training step exchanges gradients."""
    trainer = Trainer(experiment(method=method), torch.device("cpu"))
    trainer.wrap_ddp()
    count = []

    def hook(state, bucket):
        count.append(bucket.index())
        done = torch.distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
        return done.then(lambda future: future.value()[0] / world().size)

    trainer.objective.register_comm_hook(None, hook)
    generator = batch_generator(0, trainer.device, trainer.world)
    trainer.step(0, trainer.feed.at(torch.arange(trainer.batch)), generator)
    return len(count)


def test_an_attacked_step_exchanges_gradients_as_often_as_a_clean_one(tmp_path):
    attacked = {"name": "at", "negatives": {"steps": 10}}
    counts = together(tmp_path, lambda: (exchanges("standard"), exchanges(attacked)))
    assert len({*counts}) == 1 and counts[0][0] == counts[0][1] > 0


def norm_results(net, x, share):
    """Return output, gradients and running statistics of a batch norm, for a part of a batch."""
    x = x[share].clone().requires_grad_()
    out = net(x)
    (out.square() * torch.linspace(0.1, 1, out.shape[-1])).mean().backward()
    parameters = [net.weight.grad, net.bias.grad]
    return out.detach(), x.grad, parameters, [net.running_mean, net.running_var]


def batch_norm():
    net = nn.BatchNorm2d(3)
    nn.init.uniform_(net.weight, generator=torch.Generator().manual_seed(1))
    return nn.Sequential(net)


def test_synchronised_batch_norm_is_batch_norm_of_the_joined_batch(tmp_path):
    x = 2 * images(16, channels=3) + 1
    out, gradient, parameters, running = norm_results(batch_norm()[0], x, slice(None))

    def work():
        net = batch_norm()
        synchronise(net)
        rows = slice(world().rank * 8, (world().rank + 1) * 8)
        return norm_results(net[0], x, rows)

    found = together(tmp_path, work)
    torch.testing.assert_close(torch.cat([part[0] for part in found]), out)
    torch.testing.assert_close(torch.cat([part[1] for part in found]) / 2, gradient)
    for one, two, whole in zip(found[0][2], found[1][2], parameters, strict=True):
        torch.testing.assert_close((one + two) / 2, whole)
    for part in found:
        torch.testing.assert_close(part[3], running)


def penalty_gradient(net, x):
    """Return what a gradient penalty, as JEM may have, tells the weight of a batch norm."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    slope.flatten(1).square().sum(1).mean().backward()
    return net[0].weight.grad


def test_gradients_of_gradients_pass_synchronised_batch_norms(tmp_path):
    x = 2 * images(16, channels=3) + 1

    def work():
        net = batch_norm()
        synchronise(net)
        return penalty_gradient(net, x.chunk(2)[world().rank])

    found = together(tmp_path, work)
    whole = penalty_gradient(batch_norm(), x)
    torch.testing.assert_close((found[0] + found[1]) / 2, whole, rtol=1e-3, atol=1e-4)


def test_rows_of_all_processes_are_what_one_process_draws():
    def draw(generator):
        return [
            uniform((4 * 2 // size, 3), generator),
            normal((4 * 2 // size, 3), generator),
            integers(9, (4 * 2 // size,), generator),
        ]

    size, cpu = 2, torch.device("cpu")
    shared = [SharedGenerator.of(5, cpu, rank, size) for rank in range(size)]
    parts = [draw(generator) for generator in shared]
    size = 1
    for *rows, whole in zip(*parts, draw(torch.Generator().manual_seed(5)), strict=True):
        assert torch.equal(torch.cat(rows), whole)
    first, second = (torch.rand(4, generator=rank_generator(generator)) for generator in shared)
    assert not torch.equal(first, second)


def strike(epoch, rank):
    """Let the process of a rank die in the middle of an epoch."""
    step_of = Trainer.step

    def step(self, number, *rest):
        if (self.epoch, self.world.rank, number) == (epoch, rank, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        return step_of(self, number, *rest)

    Trainer.step = step


def killed(folder, command):
    """Run a command in two processes, the second of which is killed in its second epoch."""
    port = free_port()

    def work():
        strike(1, 1)
        return called(command)

    forks = [start(Place(rank, 2, port), work, folder) for rank in range(2)]
    assert forks[1].wait() == -signal.SIGKILL
    return forks[0].result()


def test_a_killed_run_goes_on_in_as_many_processes_or_fewer(tmp_path):
    config = write(tmp_path, method=JEM, optimizer={"lr": 1e-3}, epochs=2)
    command = ["train", config, "--out", tmp_path]
    straight = ranks(tmp_path, *[[*command, "--name", "straight"]] * 2)
    assert [result.code for result in straight] == [0, 0], straight[0].err
    lost = killed(tmp_path, command)
    assert lost.code == 2 and lost.err.count("cembench: error: lost touch with another") == 1
    shutil.copytree(tmp_path / "c", tmp_path / "fewer")
    assert ranks(tmp_path, *[[*command, "--resume"]] * 2)[0].code == 0
    names = ("model.safetensors", "buffer.safetensors")
    for name in names:
        whole = (tmp_path / "straight" / name).read_bytes()
        assert (tmp_path / "c" / name).read_bytes() == whole
    assert called([*command, "--name", "fewer", "--resume"]).code == 0
    shapes = {load_file(tmp_path / run / names[1])["images"].shape for run in ("c", "fewer")}
    assert shapes == {(50, 1, 8, 8)}


def refused(results, *words):
    """Check that all processes ended with 2, and that one of them said why, in one line."""
    assert {result.code for result in results} == {2}
    assert "".join(result.out for result in results) == ""
    lines = "".join(result.err for result in results).splitlines()
    errors = [line for line in lines if line.startswith("cembench: error:")]
    assert len(errors) == 1 and len(lines) == 1, lines
    assert all(word in errors[0] for word in words), errors[0]


@pytest.mark.parametrize(
    ("options", "count", "words"),
    [
        (["--set", "batch_size=127"], 2, ["127 images", "multiple of 2"]),
        (["--set", "batch_size=2"], 3, ["2 images", "3 processes"]),
        (["--set", "batchsize=2"], 2, ["did you mean 'batch_size'"]),
        pytest.param(
            ["--device", "cuda"],
            2,
            ["sees no GPU"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_processes_cannot_do_is_said_once(options, count, words, tmp_path):
    command = ["train", write(tmp_path), "--out", tmp_path, *options]
    refused(ranks(tmp_path, *[command] * count), *words)


def test_processes_that_differ_are_refused(tmp_path):
    command = ["train", write(tmp_path), "--out", tmp_path]
    refused(ranks(tmp_path, command, [*command, "--set", "seed=4"]), "process 1", "configuration")
    elsewhere = [*command[:-1], tmp_path / "elsewhere"]
    refused(ranks(tmp_path, command, elsewhere), "process 1", "does not see")


def test_processes_that_never_come_are_not_waited_for_for_ever(tmp_path):
    command = ["train", write(tmp_path), "--out", tmp_path]
    patience = {"CEMBENCH_TIMEOUT": "2"}
    refused(ranks(tmp_path, command, size=2, variables=patience), "cannot meet", "1/2 clients")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(ranks(tmp_path, command, size=2, port=port), "choose another --master-port")


def test_spread_networks_learn_from_the_images_of_all_processes(tmp_path):
    """The gradient is the mean over processes: that of the whole batch."""
    from cembench.methods.contrastive import nt_xent
    from cembench.training.ddp import wrap_ddp

    def labelled(net, rows):
        return nn.functional.cross_entropy(net(images()[rows]), labels()[rows])

    def unlabelled(net, rows):
        views = torch.cat([images()[rows], images().flip(3)[rows]])
        return nt_xent(nn.functional.normalize(net(views)), 0.5)

    def gradients(rows):
        found = []
        for loss in (labelled, unlabelled):
            net = conv_net().eval()
            wrapped = wrap_ddp(net, world(), torch.device("cpu"))
            loss(wrapped, rows).backward()
            found += [parameter.grad for parameter in net.parameters()]
        return found

    whole = gradients(slice(None))
    halves = [slice(0, 8), slice(8, 16)]
    for found in together(tmp_path, lambda: gradients(halves[world().rank])):
        torch.testing.assert_close(found, whole)
