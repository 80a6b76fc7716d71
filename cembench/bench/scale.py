"""Throughput of adversarial training in one process and in several, of one thread each.

`python -m cembench.bench.scale SETTINGS` is what each process runs, under torchrun.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from cembench.bench.networks import EnlargedDigits
from cembench.training.config import Experiment
from cembench.training.ddp import Objective
from cembench.training.trainer import Trainer
from cembench.util.distributed import ALONE, World, process_group, world
from cembench.util.errors import CembenchError
from cembench.util.rng import SharedGenerator, generator_of

LIMIT = 1800  # seconds


def bench_scale(
    model: str, batch: int, rounds: int, precision: str, device: str, processes: int = 2
) -> list[dict[str, Any]]:
    """Return a row for one process and one for several, with the same global batch.

    Args:
        model: name of the architecture, on 3×32×32 images.
        batch: images a step in all.
        rounds: timed steps.
        precision: of training.
        device: `cpu`, one thread a process, or `cuda`, a GPU a process.
        processes: how many.

    Returns:
        Rows: `communication` is the share of a step that is gone when processes neither average
        gradients nor synchronise batch norms, all else alike, and still work side by side.

    Raises:
        CembenchError: when a process fails.
    """
    settings = {"model": model, "batch": batch, "rounds": rounds, "precision": precision}
    rows = [_measured({**settings, "device": device}, count) for count in (1, processes)]
    for row in rows:
        row["speed_up"] = round(row["images_per_second"] / rows[0]["images_per_second"], 3)
    return rows


def _measured(settings: dict[str, Any], processes: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "cembench.bench.scale"]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, json.dumps(settings)], capture_output=True, text=True, env=threads, timeout=LIMIT
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise CembenchError(f"{processes} processes failed: {reason}")
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Time steps of this process among the others that torchrun started."""
    torch.set_num_threads(1)
    experiment = Experiment.parse(
        {
            "data": EnlargedDigits(),
            "model": settings["model"],
            "method": {"name": "at", "negatives": {"name": "pgd", "steps": 10}},
            "batch_size": settings["batch"],
            "precision": settings["precision"],
        }
    )
    with process_group(settings["device"]) as device:
        ranks = world()
        spread = Trainer(experiment, torch.device(device))
        spread.wrap_ddp()
        own = experiment.model_copy(update={"batch_norm": "local"})
        apart = Trainer(own, torch.device(device))
        apart.objective, apart.world = Objective(apart.model, own.method), ALONE
        seconds = {
            name: _median(_stepper(trainer, ranks, share), ranks, settings["rounds"])
            for name, trainer, share in (
                ("spread", spread, settings["batch"]),
                ("apart", apart, settings["batch"] // ranks.size),
            )
        }
    weights = sum(p.numel() for p in spread.model.parameters())
    return {
        "work": "scale",
        "processes": ranks.size,
        "network": settings["model"],
        "precision": settings["precision"],
        "batch": settings["batch"],
        "images_per_second": round(settings["batch"] / seconds["spread"], 2),
        "communication": round(max(0.0, 1 - seconds["apart"] / seconds["spread"]), 4),
        "gradient_megabytes": round(4e-6 * weights, 2),
    }


def _stepper(trainer: Trainer, ranks: World, images: int) -> Callable[[], object]:
    rows = torch.arange(images, device=trainer.device)
    generator = generator_of(0, trainer.device)
    if trainer.world.size > 1:
        generator = SharedGenerator.of(0, trainer.device, ranks.rank, ranks.size)
    return lambda: trainer.step(0, rows, generator)


def _median(step: Callable[[], object], ranks: World, rounds: int) -> float:
    times = []
    for number in range(rounds + 1):
        ranks.barrier()
        begun = time.perf_counter()
        step()
        ranks.barrier()
        if number:
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


if __name__ == "__main__":
    found = measure(json.loads(sys.argv[1]))
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found))
