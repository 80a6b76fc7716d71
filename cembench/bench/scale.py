"""Benchmark of data-parallel training: throughput of one process and of several.

Each process has one thread and runs `python -m cembench.bench.scale SETTINGS` under torchrun.
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

from cembench.bench.networks import EnlargedDigits, described
from cembench.models import ModelSettings, models
from cembench.training.config import Experiment
from cembench.training.ddp import MethodLoss
from cembench.training.trainer import Trainer
from cembench.util.errors import CembenchError
from cembench.util.processes.distributed import ALONE, World, world
from cembench.util.processes.process_group import process_group
from cembench.util.rng import SharedGenerator, generator_of

LIMIT = 1800  # seconds
PROCESSES = (1, 2, 4)


def bench_scale(
    model: ModelSettings, batch: int, rounds: int, precision: str, device: str
) -> list[dict[str, Any]]:
    """Time adversarial training in one process, in two and in four, with the same global batch.

    Each process has one thread, or one GPU; where there are fewer cores than processes, these take
    turns, and GPUs are not shared. There is a row per number of processes, where `communication`
    is the fraction of a step that is saved when concurrent processes neither average gradients nor
    synchronise batch norms.

    Raises:
        CembenchError: when a process fails.
    """
    settings = {"model": model.dump(), "batch": batch, "rounds": rounds, "precision": precision}
    most = torch.cuda.device_count() if device.startswith("cuda") else max(PROCESSES)
    counts = [count for count in PROCESSES if count <= most and batch % count == 0]
    rows = [_measured({**settings, "device": device}, count) for count in counts]
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
    """Time training steps in this process, one of those that torchrun started."""
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
        parallel = Trainer(experiment, torch.device(device))
        parallel.wrap_ddp()
        own = experiment.model_copy(update={"batch_norm": "local"})
        independent = Trainer(own, torch.device(device))
        independent.objective = MethodLoss(independent.model, own.method)
        independent.world = independent.feed.world = ALONE
        seconds = {
            name: _median(_stepper(trainer, ranks, images), ranks, settings["rounds"])
            for name, trainer, images in (
                ("parallel", parallel, settings["batch"]),
                ("independent", independent, settings["batch"] // ranks.size),
            )
        }
    weights = sum(p.numel() for p in parallel.model.parameters())
    return {
        "work": "scale",
        "processes": ranks.size,
        "network": described(models.parse(settings["model"])),
        "precision": settings["precision"],
        "batch": settings["batch"],
        "images_per_second": round(settings["batch"] / seconds["parallel"], 2),
        "communication": round(max(0.0, 1 - seconds["independent"] / seconds["parallel"]), 4),
        "gradient_megabytes": round(4e-6 * weights, 2),
    }


def _stepper(trainer: Trainer, ranks: World, images: int) -> Callable[[], object]:
    batch = trainer.feed.at(torch.arange(images))
    generator = generator_of(0, trainer.device)
    if trainer.world.size > 1:
        generator = SharedGenerator.of(0, trainer.device, ranks.rank, ranks.size)
    return lambda: trainer.step(0, batch, generator)


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
