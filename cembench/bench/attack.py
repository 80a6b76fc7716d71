"""Benchmark of attacks against pyautoattack's own evaluation and torchattacks' PGD."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cembench.attacks.autoattack import official_autoattack
from cembench.bench import interleaved, row
from cembench.bench.meters import flops
from cembench.bench.networks import EnlargedDigits, described, trained
from cembench.bench.passes import BareRate, Counted, CountedEngine, Passes
from cembench.data.split import Split, subset
from cembench.energy.ascent import usual_step
from cembench.energy.threat import Threat
from cembench.evaluation.measures.robustness import attack_split
from cembench.evaluation.protocol import Protocol
from cembench.models import ModelSettings
from cembench.models.engine import Fast
from cembench.models.source import ModelSource
from cembench.util.extras import optional_package
from cembench.util.frozen import frozen
from cembench.util.rng import isolated_rng

BATCH = 256
PGD_STEPS = 20
Reference = Callable[[nn.Module, Tensor, Tensor, Threat, int], Tensor]


@dataclass(frozen=True)
class Attacked:
    """A network to attack, its images and the threat model."""

    kind: str
    network: str
    model: nn.Module
    images: Split
    threat: Threat

    @classmethod
    def trained(cls, kind: str, model: ModelSettings, device: str) -> Attacked:
        """Train a `robust` or a `standard` network."""
        data, network = EnlargedDigits(), trained(kind, device, model)
        return cls(kind, described(model), network, data.load("test"), data.threat)

    @classmethod
    def saved(cls, checkpoint: Path, device: str) -> Attacked:
        """Load a checkpoint, with its test images and its own threat model."""
        source = ModelSource.at(checkpoint)
        metadata, model = source.metadata, source.load(torch.device(device))
        network, images = described(metadata.model), metadata.images("test")
        return cls(source.name, network, model, images, metadata.threat)


def bench_attack(
    work: str,
    architecture: ModelSettings,
    images: int,
    seeds: int,
    device: str,
    engine: Fast,
    checkpoints: Sequence[Path] = (),
) -> list[dict[str, Any]]:
    """Attack networks with both implementations: checkpoints, or a robust and a standard network.

    Each round has its own seed, and verdicts are compared per seed. There is a row per network; it
    also has, over all seeds:

    - `discordant`, the number of verdicts that differ, and `net`, how many more images survive our
      attack;
    - `reference_discordant`, how many of the reference's own differ from one seed to the next;
    - `forward` and `gradient`, the passes of an image, without and with its gradient;
    - `share`, what these passes cost on the bare network, as it is or as a fast copy, in batches of
      the same size, over our time.
    """
    loaders = [partial(Attacked.saved, checkpoint, device) for checkpoint in checkpoints] or [
        partial(Attacked.trained, kind, architecture, device) for kind in ("robust", "standard")
    ]
    return [_bench(work, load(), images, seeds, device, engine) for load in loaders]


def _bench(
    work: str, network: Attacked, images: int, seeds: int, device: str, engine: Fast
) -> dict[str, Any]:
    model, threat = network.model, network.threat
    split = subset(network.images, images)[0].to(torch.device(device))
    x, y = split.pixels(), split.labels
    bare = BareRate(model, engine, x, device)
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    made: list[Passes] = []

    def run_ours() -> None:
        protocol = Protocol.parse(
            {"name": "bench", "seed": len(ours), "batch_size": BATCH}
            | {"attacks": [{"name": "pgd", "steps": PGD_STEPS} if work == "pgd" else work]}
            | {"engine": CountedEngine(inner=engine)}
        )
        made.append(Passes())
        ours.append(survivors(Counted(model, made[-1]), split, protocol, threat))

    def run_theirs() -> None:
        with frozen(model), isolated_rng(len(theirs)):
            adversarial = REFERENCES[work](model, x, y, threat, len(theirs))
            with torch.no_grad():
                theirs.append(model(adversarial).argmax(1).eq(y).cpu())

    def measure() -> None:
        bare.measure(made)

    warm_up = work == "pgd"
    timing = interleaved(run_ours, run_theirs, seeds, device, warm_up, measure)
    ours, theirs, made = ours[-seeds:], theirs[-seeds:], made[-seeds:]  # without the warm-up
    of_pass = flops(model, x[:8])
    return row(
        work,
        network.kind,
        network.network,
        len(x),
        engine.precision,
        timing,
        1 - differing(ours, theirs) / (seeds * len(x)),
        statistics.median(passes.operations(*of_pass) for passes in made),
        device,
        share=round(statistics.median(map(bare.seconds, made)) / timing.ours, 3),
        forward=round(sum(passes.images(False) for passes in made) / seeds / len(x), 1),
        gradient=round(sum(passes.images(True) for passes in made) / seeds / len(x), 1),
        seeds=seeds,
        discordant=differing(ours, theirs),
        reference_discordant=differing(theirs[1:], theirs[:-1]),
        net=sum(int(a.sum() - b.sum()) for a, b in zip(ours, theirs, strict=True)),
        robust_acc=round(float(torch.stack(ours).float().mean()), 4),
        reference_robust_acc=round(float(torch.stack(theirs).float().mean()), 4),
    )


def differing(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> int:
    """Return how many verdicts differ, over all seeds."""
    return sum(int((a != b).sum()) for a, b in zip(ours, theirs, strict=True))


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
    library = optional_package("torchattacks", "'cembench[attacks]'")
    alpha = usual_step(threat.eps, steps)
    attack = library.PGD(model, eps=threat.eps, alpha=alpha, steps=steps)
    return torch.cat([attack(*pair) for pair in zip(x.split(BATCH), y.split(BATCH), strict=True)])


REFERENCES: dict[str, Reference] = {"autoattack": official, "pgd": torchattacks_pgd}
