"""Run folders of every kind, written in no time: what tests of reports are about."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cembench.evaluation.record.files import save_record
from cembench.evaluation.sections.curve import CurvePoint
from cembench.evaluation.sections.density_results import (
    Bin,
    Calibration,
    Density,
    EnergyShift,
    OODScores,
)
from cembench.evaluation.sections.sanity import SanityCheck
from cembench.evaluation.statistics import MeanStd, rate, wilson
from cembench.util.display.image_grid import grid
from cembench.util.files.layout import RunLayout
from tests.support.records import both, drawn, sampled

HOSTILE = "<script>alert(1)</script>"
BARE = {"curve": [], "density": None, "history": False}  # a run whose only chart is the plane


def density():
    return Density(
        calibration=Calibration(
            ece=0.031, bins=[Bin(low=0.5, high=1, images=10, confidence=0.8, accuracy=0.7)]
        ),
        energies={kind: MeanStd(mean=5.0, std=1.0, images=10) for kind in ("clean", "noise")},
        outside={"noise": {"log_px": OODScores(others=10, auroc=0.987, fpr95=0.25)}},
        pushed={
            "pgd": EnergyShift(
                accuracy=rate(pd.Series([True, False])), lse_change=-1.5, lse_error=0.25
            )
        },
    )


def point(eps, correct):
    low, high = wilson(correct, 10)
    return CurvePoint(eps=eps, correct=correct, images=10, low=low, high=high)


def png(seed=0):
    images = torch.from_numpy(np.random.default_rng(seed).random((20, 1, 8, 8), dtype="float32"))
    return grid({"starts": images, "samples": images}, torch.arange(20) % 10, list("0123456789"))


def leave(folder, robust=50, kid=1.0, *, pictures=True, history=True, **changes):
    """Write a run folder with a record, pictures and a history; return the path of the record."""
    values = {
        "curve": [point(0.0, 9), point(0.125, 5), point(0.25, 1)],
        "density": density(),
        "sanity": [SanityCheck(name="zero_gradients", verdict="pass", figure=0.0, meaning="why")],
        "created": "2026-11-24T10:00:00+00:00",
    }
    values |= changes
    made = both(values.pop("run", folder.name), robust, kid, **values)
    path = folder / "eval" / "standard.json"
    save_record(path, made, None)
    for title in made.generation.samplers if pictures and made.generation is not None else ():
        for place in (RunLayout.picture, RunLayout.trajectory):
            file = place(path, title)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(png(len(title)))
    if history:
        rows = {"epoch": [1, 2], "loss": [2.0, 1.0], "val_clean_acc": [0.5, 0.9]}
        pd.DataFrame(rows).to_csv(folder / "history.csv", index=False)
    return path


def encoder(folder, **changes):
    unlabelled = drawn(3.0, samplers={"maxent-pooled": sampled("pooled", 3.0)})
    nothing = {"figures": {}, "curve": [], "density": None, "sanity": [], "labels": "none"}
    generation = {"kind": "encoder", "method": "infonce", "generation": unlabelled}
    return leave(folder, **{**nothing, **generation, **changes})


def every_kind(folder: Path) -> Path:
    """Leave runs that are good, doubtful, unfinished, failed, without labels and badly named."""
    doubt = SanityCheck(name="black_box_wins", verdict="fail", figure=0.3, meaning="Square wins")
    leave(folder / "good", 60, 1.5)
    leave(folder / "doubtful", 7, 0.5, sanity=[doubt])
    leave(folder / "early", 99, 10.0, finished=False, pictures=False)
    nothing = {"figures": {}, "curve": [], "density": None, "sanity": [], "generation": None}
    leave(folder / "failed", error=f"training diverged: {HOSTILE}", **nothing)
    encoder(folder / "infonce")
    labels = {"warnings": [HOSTILE], "environment": {"device": HOSTILE}, "model": HOSTILE}
    leave(folder / "slash" / "x", run=HOSTILE, method="a & b", **labels)
    return folder
