"""Black-box attacks beside white-box ones: they see no gradient, and should succeed less often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cembench.attacks import Attack, Target
from cembench.evaluation.measures.attack_progress import BEFORE
from cembench.evaluation.sections.sanity import SanityCheck
from cembench.evaluation.target import applicable
from cembench.util.lazy import lazy_imports

if TYPE_CHECKING:
    import pandas as pd

with lazy_imports():
    from scipy.stats import binomtest

LEVEL = 0.01
# Square broke none of the 6,900 images that APGD and FAB had left on 80 digit networks, and at most
# two of 53 that PGD with 10 steps or more had. pyautoattack warns from 0.2 % of all images.
USUAL = 0.01
NAME = "black_box_beats_white_box"
MEANING = (
    "share of the images left by white-box attacks that a black-box one of the protocol breaks; "
    "fails beyond chance (1 % level) above 1 % where it was given what they left, as in "
    "AutoAttack, or if, both on all images, it breaks more: gradients hide what is there"
)


def black_box_check(table: pd.DataFrame, attacks: Sequence[Attack], target: Target) -> SanityCheck:
    """Compare each black-box attack of a protocol with the white-box ones, by their verdicts.

    A black-box stage that is given what white-box stages left, as Square in AutoAttack, hardly
    finds anything: one-sided binomial test. A black-box attack on all images breaks fewer of them
    than all white-box attacks together: McNemar's exact test, one-sided.

    Args:
        table: of verdicts, one row per image.
        attacks: those of the protocol.
        target: what they faced, which decides which stages apply.

    Returns:
        The check, skipped unless attacks of both kinds were run, and in ℓ0, where random search is
        the stronger attack anyway.
    """
    ran = [_Ran.of(one, target, table) for one in attacks if f"{one.title}_by" in table]
    found = list(_comparisons(table, [one for one in ran if one.stages]))
    if not found or not target.threat.ball.convex:
        return SanityCheck(name=NAME, verdict="skipped", figure=None, meaning=MEANING)
    p_value, share = min(found)
    failed = p_value * len(found) <= LEVEL
    return SanityCheck(
        name=NAME, verdict="fail" if failed else "pass", figure=share, meaning=MEANING
    )


@dataclass(frozen=True)
class _Ran:
    """An attack that was run.

    Attributes:
        alone: whether all it does is black-box, on all images.
        stages: the names of its stages.
        blind: those of them that are black-box.
        by: the stage that succeeded on each image; empty for none.
        tried: on which images no stage was left out.
    """

    alone: bool
    stages: frozenset[str]
    blind: frozenset[str]
    by: pd.Series
    tried: pd.Series

    @classmethod
    def of(cls, attack: Attack, target: Target, table: pd.DataFrame) -> _Ran:
        stages = frozenset(name for name, _ in applicable(attack, target))
        blind = stages & (attack.black_box or frozenset())
        nothing = table["label"].astype(str).str.slice(0, 0)
        by, part = (table.get(f"{attack.title}_{end}", nothing) for end in ("by", "sample"))
        return cls(attack.on == "all" and stages == blind, stages, blind, by, part != "untried")


def _comparisons(table: pd.DataFrame, ran: Sequence[_Ran]) -> Iterator[tuple[float, float]]:
    """Yield a p-value for each black-box attack, and the share it breaks of what others left."""
    if all(one.stages == one.blind for one in ran):
        return
    right = table["clean_pred"] == table["label"]
    white = right & False
    for one in ran:
        white |= one.by.isin(one.stages - one.blind)
    for one in (one for one in ran if one.blind):
        won = one.by.isin(one.blind)
        standing = one.tried & ~one.by.isin([*one.stages, BEFORE])
        left = right & ~white & (won | standing)
        found = int((won & left).sum())
        against = int((white & standing).sum()) + found if one.alone else int(left.sum())
        usual = 0.5 if one.alone else USUAL
        if against:
            p_value = binomtest(found, against, usual, alternative="greater").pvalue
            yield float(p_value), found / max(1, int(left.sum()))
        else:
            yield 1.0, 0.0
