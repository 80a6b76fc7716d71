"""Benchmark of attacks against pyautoattack's own evaluation and torchattacks' PGD."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cembench.attacks.autoattack import official_autoattack
from cembench.bench import interleaved, row
from cembench.bench.meters import OperationCounter
from cembench.bench.networks import SMALL, EnlargedDigits, trained
from cembench.data.split import Split, subset
from cembench.energy.threat import Threat
from cembench.evaluation.measures.robustness import attack_split
from cembench.evaluation.protocol import Protocol
from cembench.util.frozen import frozen
from cembench.util.rng import isolated_rng

BATCH = 256
PGD_STEPS = 20
Reference = Callable[[nn.Module, Tensor, Tensor, Threat, int], Tensor]


def bench_attack(
    work: str, images: int, seeds: int, device: str, engine: dict[str, Any]
) -> list[dict[str, Any]]:
    """Attack a robust and a standard network with both implementations.

    Each round has its own seed, and verdicts are compared per seed. There is a row per network; it
    also has over all seeds `discordant`, the number of verdicts that differ, and `net`, how many
    more images survive our attack.
    """
    return [_bench(work, kind, images, seeds, device, engine) for kind in ("robust", "standard")]


def _bench(
    work: str, kind: str, images: int, seeds: int, device: str, engine: dict[str, Any]
) -> dict[str, Any]:
    model, data = trained(kind, device), EnlargedDigits()
    split = subset(data.load("test"), images)[0].to(torch.device(device))
    x, y = split.pixels(), split.labels
    spent = OperationCounter(model, x[:8])
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    done: list[float] = []

    def run_ours() -> None:
        protocol = Protocol.parse(
            {"name": "bench", "seed": len(ours), "batch_size": BATCH, "engine": engine}
            | {"attacks": [{"name": "pgd", "steps": PGD_STEPS} if work == "pgd" else work]}
        )
        before = spent.total
        ours.append(survivors(model, split, protocol, data.threat))
        done.append(spent.total - before)

    def run_theirs() -> None:
        with frozen(model), isolated_rng(len(theirs)):
            adversarial = REFERENCES[work](model, x, y, data.threat, len(theirs))
            with torch.no_grad():
                theirs.append(model(adversarial).argmax(1).eq(y).cpu())

    timing = interleaved(run_ours, run_theirs, seeds, device, warm_up=work == "pgd")
    pairs = list(zip(ours, theirs, strict=True))
    discordant = sum(int((a != b).sum()) for a, b in pairs)
    net = sum(int(a.sum() - b.sum()) for a, b in pairs)
    return row(
        work,
        kind,
        f"{SMALL['name']} (width {SMALL['width']})",
        len(x),
        engine["precision"],
        timing,
        1 - discordant / (len(pairs) * len(x)),
        statistics.median(done),
        device,
        seeds=seeds,
        discordant=discordant,
        net=net,
        robust_acc=round(float(torch.stack(ours).float().mean()), 4),
        reference_robust_acc=round(float(torch.stack(theirs).float().mean()), 4),
    )


def survivors(model: nn.Module, split: Split, protocol: Protocol, threat: Threat) -> Tensor:
    """Return which images survive the one attack of a protocol, N booleans."""
    rows = torch.arange(len(split))
    found = attack_split(model, split, rows, protocol, threat)
    (attack,) = protocol.attacks
    right = found["clean_pred"] == found["label"]
    return torch.from_numpy((right & ~found[f"{attack.title}_broken"]).to_numpy().copy())


def official(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int) -> Tensor:
    """Return the adversarial images of pyautoattack's `run_standard_evaluation`."""
    attack = official_autoattack(model, threat, seed)
    return attack.run_standard_evaluation(x, y, batch_size=BATCH)[0]


def torchattacks_pgd(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int, steps: int = PGD_STEPS
) -> Tensor:
    """Return the images of torchattacks' PGD."""
    import torchattacks

    alpha = 2.5 * threat.eps / steps
    attack = torchattacks.PGD(model, eps=threat.eps, alpha=alpha, steps=steps)
    return torch.cat([attack(*pair) for pair in zip(x.split(BATCH), y.split(BATCH), strict=True)])


REFERENCES: dict[str, Reference] = {"autoattack": official, "pgd": torchattacks_pgd}
