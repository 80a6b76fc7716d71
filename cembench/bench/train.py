"""Benchmark of training steps against the plain loops of research code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from cembench.bench import interleaved, row
from cembench.bench.meters import flops
from cembench.bench.networks import described
from cembench.data import DataSettings
from cembench.data.views import Views
from cembench.models import ModelSettings
from cembench.training.config import Experiment
from cembench.training.trainer import Trainer
from cembench.util.rng import generator_of

EPS, ALPHA, STEPS = 8 / 255, 2 / 255, 10
RATE = 0.001
TEMPERATURE = 0.5
ATTACK = {"negatives": {"name": "pgd", "steps": STEPS, "step_size": ALPHA}}
METHODS: dict[str, dict[str, Any]] = {
    "at": ATTACK,
    "trades": {"negatives": {"steps": STEPS, "step_size": ALPHA}},
    "infonce": {"temperature": TEMPERATURE},
    "adv-infonce": {"temperature": TEMPERATURE, "stream": "dual", **ATTACK},
}


def bench_train(
    model: ModelSettings,
    data: DataSettings,
    batch: int,
    rounds: int,
    precision: str,
    device: str,
    method: str,
    compiled: bool,
) -> list[dict[str, Any]]:
    """Time a training step against the plain loop; attacks take 10 steps of 2/255 within 8/255.

    Both start from the same weights and use the same images in every step.

    Both sides make views in the same way; methods without labels make two of each image. The
    `agreement` of the row compares the predictions of both networks after the last step.
    """
    trainer = trainer_of(model, data, method, batch, precision, device, compiled)
    reference = copy.deepcopy(trainer.model).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(reference.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    rows = torch.arange(batch, device=device)
    x, y, taken = trainer.data.pixels(rows), trainer.data.labels[rows], trainer.feed.at(rows)
    generator = generator_of(0, device)
    before = trainer.gradients
    timing = interleaved(
        lambda: trainer.step(0, taken, generator),
        lambda: plain_step(reference, optimizer, x, y, PLAIN[method]),
        rounds,
        device,
    )
    gradients = (trainer.gradients - before) / (rounds + 1)
    trainer.model.eval(), reference.eval()
    with torch.no_grad():
        alike = trainer.model(x).argmax(1) == reference(x).argmax(1)
    operations, agreement = gradients * flops(reference, x[:2])[1], float(alike.float().mean())
    title, network = f"train {method}" + (" compiled" if compiled else ""), described(model)
    return [row(title, "new", network, batch, precision, timing, agreement, operations, device)]


def trainer_of(
    model: ModelSettings,
    data: DataSettings,
    method: str,
    batch: int,
    precision: str,
    device: str = "cpu",
    compiled: bool = False,
) -> Trainer:
    """Return a trainer whose steps are those of the benchmark."""
    settings = {
        "data": data,
        "model": model,
        "method": {"name": method, **METHODS[method]},
        "threat": {"norm": "linf", "eps": EPS},
        "batch_size": batch,
        "precision": precision,
        "optimizer": {"lr": RATE},
        "schedule": {"name": "constant"},
        "compile": compiled,
    }
    return Trainer(Experiment.parse(settings), torch.device(device))


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, loss: Loss
) -> None:
    """Take one step as in research code: float32, default memory layout, no optimisations."""
    value = loss(model, x, y)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()


def plain_attack(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Return adversarial images of PGD."""
    model.eval()
    perturbed = x + 0.001 * torch.randn_like(x)
    for _ in range(STEPS):
        perturbed.requires_grad_()
        gradient = torch.autograd.grad(loss(model(perturbed)), [perturbed])[0]
        perturbed = perturbed.detach() + ALPHA * gradient.sign()
        perturbed = torch.min(torch.max(perturbed, x - EPS), x + EPS).clamp(0, 1)
    model.train()
    return perturbed


def plain_at(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of adversarial training."""
    perturbed = plain_attack(model, x, lambda logits: cross_entropy(logits, y))
    return cross_entropy(model(perturbed), y)


def plain_trades(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of TRADES, as in its code."""
    model.eval()
    clean = model(x).softmax(1).detach()
    model.train()
    moved = plain_attack(model, x, lambda out: _divergence(out, clean))
    logits = model(x)
    return cross_entropy(logits, y) + 6 * _divergence(model(moved), logits.softmax(1)) / len(x)


def _divergence(out: Tensor, clean: Tensor) -> Tensor:
    return kl_div(out.log_softmax(1), clean, reduction="sum")


def plain_nt_xent(z: Tensor) -> Tensor:
    """Return the loss of SimCLR, as in its formula."""
    similar = (z @ z.T / TEMPERATURE).exp()
    similar = similar - torch.diag(similar.diag())
    half = len(z) // 2
    positive = torch.cat([similar.diagonal(half), similar.diagonal(-half)])
    return -(positive / similar.sum(1)).log().mean()


def plain_infonce(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of SimCLR."""
    return plain_nt_xent(model(torch.cat(Views().pair(x))))


def plain_adv_infonce(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of ACL with both streams."""
    views = torch.cat(Views().pair(x))
    moved = plain_attack(model, views, plain_nt_xent)
    return (plain_nt_xent(model(moved)) + plain_nt_xent(model(views))) / 2


PLAIN: dict[str, Loss] = {
    "at": plain_at,
    "trades": plain_trades,
    "infonce": plain_infonce,
    "adv-infonce": plain_adv_infonce,
}
