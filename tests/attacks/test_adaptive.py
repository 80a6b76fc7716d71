"""An adaptive attack by plugin breaks a defence that AutoAttack leaves standing."""

import sys
from pathlib import Path

import torch

from cembench.attacks import attacks
from cembench.energy.threat import Threat
from cembench.models.checkpoint import load_checkpoint
from tests.support.attacks import run

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"


def test_bpda_breaks_rounding_that_autoattack_does_not(undefended, short_autoattack, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(attacks, "_targets", dict(attacks._targets))
    monkeypatch.delitem(sys.modules, "bpda", raising=False)
    import bpda

    model, metadata = load_checkpoint(undefended)
    split = metadata.data.load("test").take(torch.arange(48))
    defended = bpda.Rounded(model, levels=8, step=4.0).eval()
    given = ["autoattack-fast", {"name": "pgd", "steps": 20}]
    given.append({"name": "bpda", "steps": 20, "loss": "margin"})
    table = run(defended, split, Threat(norm="linf", eps=0.125), *given)
    broken = {name: table[f"{name}_broken"].sum() for name in ("autoattack-fast", "pgd", "bpda")}
    assert broken["bpda"] > 2 * broken["autoattack-fast"] and broken["pgd"] < 5
    assert (table["bpda_norm"].dropna() <= 0.125 + 1e-5).all()
