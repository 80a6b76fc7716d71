"""Transfer: adversarial images of several runs, shown to one of them.

    python configs/studies/transfer.py runs/cem-b-awp.s0 runs/at.s0 runs/dat.s0

PGD with 50 steps and two restarts attacks each source, by the cross-entropy and by the margin of
the logits, without leaving images alone that the source already misclassifies. An attack succeeds
on an image if any of its images is misclassified by the target, which is the first run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import cembench as cb
from cembench.models.metadata import read_metadata
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.util.rng import generator_of

LOSSES = ("cross-entropy", "margin")


def images_of(source: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, threat):
    """Yield the last iterates of each loss and restart, N×C×H×W."""
    for loss in LOSSES:
        for seed in range(2):
            context = SamplerContext(threat, generator_of(seed, "cpu"))
            yield PGD(steps=50, loss=loss).draw(source, x, y, context)


def main(target: str, sources: list[str]) -> None:
    """Print how many of the target's right images survive those of each source."""
    metadata = read_metadata(Path(target) / "model.safetensors")
    split, threat = metadata.data.load("test"), metadata.threat
    x, y = split.pixels(), split.labels
    judge = cb.load(target).eval()
    right = judge(x).argmax(1) == y
    print(f"| source | {target} survives, of {len(y)} |\n| --- | --- |")
    for source in sources:
        survives = right.clone()
        for attacked in images_of(cb.load(source).eval(), x, y, threat):
            with torch.no_grad():
                survives &= judge(attacked).argmax(1) == y
        print(f"| {source} | {survives.sum()} ({100 * survives.float().mean():.1f} %) |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
