"""Attacks on an entry, run again on a random share of its images with seeds of the keeper."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor

from cembench.attacks import attacks
from cembench.evaluation.context import EvaluationContext
from cembench.evaluation.measure import verdict_table
from cembench.evaluation.measures.robustness import RunAttacks
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.sections import SECTIONS
from cembench.evaluation.sections.robustness import PARTS
from cembench.interop.submission.checks import Checks
from cembench.interop.submission.claim import Claim
from cembench.reporting.leaderboard.ranking import ROBUST
from cembench.util.rng import derive, generator_of

FEWEST = 100  # images that are attacked again
LEVEL = 0.01  # of the tests that refuse
SUSPICIOUS = 0.2  # below this p-value all images are attacked again
TOLERATED = 0.02  # share of survivors on which the keeper's own attack may succeed
KEEPERS = "keepers-pgd"

RULE = (
    "Attacks were run again on a random choice of images with other seeds. The same attack is as "
    "likely to lose an image as to find one, so the images that it found anew are compared with "
    f"those that it lost (one-sided sign test); below p = {SUSPICIOUS:g} all images are attacked, "
    f"and below p = {LEVEL:g} the entry is refused. Images that a sampled stage had left untried "
    "do not count. The keeper's own attack, PGD-50 with 5 restarts, attacks what is left: the "
    f"entry is refused where it succeeds on significantly more than {TOLERATED:.0%} of the "
    f"survivors (binomial test, level {LEVEL:g}) although AutoAttack was in the protocol."
)


def attack_again(
    claim: Claim, context: EvaluationContext, share: float, seed: int, checks: Checks
) -> int:
    """Attack a random share of the images with other seeds, and compare verdicts; see `RULE`.

    Returns:
        How many images were attacked.

    Raises:
        Refused: when clearly more images fall than the entry says.
    """
    total = len(context.split)
    count = min(total, max(FEWEST, math.ceil(share * total)))
    order = torch.randperm(total, generator=generator_of(derive(seed, "images"), "cpu"))
    with checks.stage("Attacks again"), checks.trying("attacks", "run"):
        found = _attacked(context, order[:count].sort().values, seed)
        if count < total and min(_values(claim, found)) < SUSPICIOUS:
            checks.note("images attacked again", f"{count} of {total}", "all, after the first ones")
            count = total
            found = _attacked(context, torch.arange(total), seed)
        _compare(claim, found, checks)
    return count


def _attacked(context: EvaluationContext, chosen: Tensor, seed: int) -> pd.DataFrame:
    """Return the verdicts of all attacks of the protocol, and the keeper's, on chosen images."""
    protocol = _attacks_alone(context.protocol, derive(seed, "attacks") % 2**31)
    split, rows = context.split.take(chosen.to(context.split.device)), context.rows[chosen]
    threat = context.header.threat
    return verdict_table(context.model, split, rows, protocol, threat, RunAttacks())[0]


def _attacks_alone(protocol: Protocol, seed: int) -> Protocol:
    others = {s.key: s.setting[1] for s in SECTIONS if s.key not in ("attacks", "threats")}
    keepers = {"name": "pgd", "label": KEEPERS, "steps": 50, "restarts": 5, "on": "survivors"}
    own = [*protocol.attacks, attacks.parse(keepers)]
    return protocol.model_copy(update={**others, "attacks": own, "seed": seed})


def _recorded(claim: Claim, found: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the entry's table for the images that were attacked again."""
    return claim.table.set_index("index").loc[found["index"]].reset_index()


def _discordant(claim: Claim, found: pd.DataFrame) -> Iterator[tuple[str, int, int]]:
    """Yield for each attack how many images it found anew, and how many it lost."""
    recorded = _recorded(claim, found)
    for run in claim.protocol.runs:
        title = run.title
        if f"{title}_broken" not in recorded or f"{title}_broken" not in found:
            continue
        before, now = recorded[f"{title}_broken"], found[f"{title}_broken"]
        late = before & False
        if run.attack.sampling is not None and f"{title}_sample" in recorded:
            by_late = found[f"{title}_by"].isin(run.attack.sampling.stages)
            late = (recorded[f"{title}_sample"] == PARTS[3]) & by_late
        yield title, int((now & ~before & ~late).sum()), int((before & ~now).sum())


def _sign_test(anew: int, lost: int) -> float:
    return float(binomtest(anew, anew + lost, 0.5, "greater").pvalue) if anew else 1.0


def _survivors(claim: Claim, found: pd.DataFrame) -> pd.Series:
    """Return which images survive all attacks of the record in its threat model."""
    recorded = _recorded(claim, found)
    survives = recorded["clean_pred"] == recorded["label"]
    for attack in claim.protocol.attacks:
        if f"{attack.title}_broken" in recorded:
            survives &= ~recorded[f"{attack.title}_broken"]
    return survives


def _keepers(claim: Claim, found: pd.DataFrame) -> tuple[int, int, float]:
    """Return on how many survivors the keeper's attack succeeds, of how many, and the p-value."""
    survives = _survivors(claim, found)
    own = f"{KEEPERS}-rest"
    if f"{own}_broken" not in found or not survives.any():
        return 0, int(survives.sum()), 1.0
    fell = survives & found[f"{own}_broken"] & (found[f"{own}_by"] == own)
    fallen, of = int(fell.sum()), int(survives.sum())
    return fallen, of, float(binomtest(fallen, of, TOLERATED, "greater").pvalue)


def _values(claim: Claim, found: pd.DataFrame) -> list[float]:
    values = [_sign_test(anew, lost) for _, anew, lost in _discordant(claim, found)]
    return [*values, _keepers(claim, found)[2], 1.0]


def _compare(claim: Claim, found: pd.DataFrame, checks: Checks) -> None:
    for title, anew, lost in _discordant(claim, found):
        p = _sign_test(anew, lost)
        text = f"{anew} found anew, {lost} lost, of {len(found)} images (p = {p:.2g})"
        checks.require(f"{title} again", p >= LEVEL, "about as many anew as lost", text)
        if anew and p >= LEVEL:
            checks.note(f"survivors of {title} that fell", "none", anew)
    fallen, of, p = _keepers(claim, found)
    text = f"{fallen} of {of} (p = {p:.2g})"
    strong = any(attack in claim.record.figures for attack in list(ROBUST)[:3])
    expected = f"{TOLERATED:.0%} at most"
    if strong or p >= LEVEL:
        checks.require("survivors that the keeper's attack succeeds on", p >= LEVEL, expected, text)
    else:
        checks.note("survivors that the keeper's attack succeeds on", expected, text)
