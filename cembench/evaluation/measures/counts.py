"""Counts: every accuracy from a table of verdicts, with what its interval has to allow for."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cembench.evaluation.sections.robustness import Figure, WorstClass
from cembench.evaluation.statistics import ONE_SIDED, most_found, rate, wilson


def fooled_outside(title: str, norm: str | None, fooled: int, outside: int, images: int) -> str:
    """Say that an attack fooled a network outside the ball, and what that means.

    Args:
        title: of the attack.
        norm: the one that it minimises, if any.
        fooled: images that it fooled the network on.
        outside: those of them on which it did so outside the ball alone.
        images: how many it attacked.
    """
    where = "all" if outside == fooled else f"{outside} of them"
    why = "; its accuracy says little of robustness" if norm is None else f": it minimises {norm}"
    return f"{title} fooled {fooled} of {images}, {where} outside the ball{why}"


def count(
    table: pd.DataFrame, attacks: list[str], seconds: dict[str, float], classes: Sequence[str] = ()
) -> dict[str, Figure]:
    """Count every figure from a table of verdicts, one row per image.

    Args:
        table: the verdicts.
        attacks: titles of those in it.
        seconds: wall time of each, by title, and of its stages, by `TITLE/STAGE`.
        classes: their names in the order of labels; without names, figures have no worst class.
    """

    def counted(correct: pd.Series, correct_8bit: pd.Series, under: list[str]) -> Figure:
        worst = worst_class(correct, table["label"], classes)
        outside = correct & bool(under)
        for attack in under:
            outside &= table.get(f"{attack}_outside", False)
        more = {"worst_class": worst, "outside": int(outside.sum())}
        found = figure(correct, correct_8bit).model_copy(update=more)
        return allowed_for(found, table, under, correct)

    right = table["clean_pred"] == table["label"]
    right_8bit = right & (table["clean_8bit_pred"] == table["label"])
    figures = {"clean": counted(right, right_8bit, [])}
    left, left_8bit = right, right_8bit
    for attack in attacks:
        survives = right & ~table[f"{attack}_broken"]
        survives_8bit = right_8bit & ~table[f"{attack}_broken_8bit"]
        won = table.loc[table[f"{attack}_broken"], f"{attack}_by"].value_counts()
        figures[attack] = counted(survives, survives_8bit, [attack]).model_copy(
            update={
                "won": {str(stage): int(number) for stage, number in won.items()},
                "seconds": round(seconds.get(attack, 0.0), 3),
                "stage_seconds": _stage_seconds(attack, seconds),
            }
        )
        left, left_8bit = left & survives, left_8bit & survives_8bit
    return {**figures, "worst_case": counted(left, left_8bit, attacks)} if attacks else figures


def _stage_seconds(attack: str, seconds: dict[str, float]) -> dict[str, float]:
    """Return the wall time of the stages of an attack, if it has several."""
    parts = [(*key.partition("/"), spent) for key, spent in seconds.items()]
    own = {stage: round(spent, 3) for title, _, stage, spent in parts if stage and title == attack}
    return own if len(own) > 1 else {}


def worst_class(correct: pd.Series, labels: pd.Series, classes: Sequence[str]) -> WorstClass | None:
    """Return the class with the lowest share of correct images; None without names or images."""
    if not classes or correct.empty:
        return None
    shares = correct.groupby(labels).mean()
    label = shares.index.to_numpy()[shares.to_numpy().argmin()]
    own = correct[labels == label]
    return WorstClass(name=classes[int(label)], correct=int(own.sum()), images=len(own))


def allowed_for(
    found: Figure, table: pd.DataFrame, attacks: list[str], survives: pd.Series
) -> Figure:
    """Return a figure whose interval allows for survivors that sampled stages left untried."""
    sampled = [attack for attack in attacks if f"{attack}_sample" in table]
    untried, at_risk = survives & False, 0
    for attack in sampled:
        part = table[f"{attack}_sample"]
        untried |= survives & (part == "untried")
        at_risk += _at_risk(part, table[f"{attack}_broken"], ONE_SIDED / len(sampled))
    left = int(untried.sum())
    if left == 0:
        return found
    at_risk = min(at_risk, left)
    low = wilson(found.correct - at_risk, found.images)[0]
    return found.model_copy(update={"untried": left, "at_risk": at_risk, "low": low})


def _at_risk(part: pd.Series, broken: pd.Series, error: float) -> int:
    """Return on how many images outside the sample its stages may succeed, at most.

    `error` is the probability that they are more. Bounds of several attacks are added.
    """
    drawn = part == "drawn"
    hits = int((drawn & broken).sum())
    return most_found(hits, int(drawn.sum()), int((part != "").sum()), error) - hits


def figure(correct: pd.Series, correct_8bit: pd.Series) -> Figure:
    """Count two columns of booleans."""
    return Figure(**rate(correct).dump(), correct_8bit=int(correct_8bit.sum()))
