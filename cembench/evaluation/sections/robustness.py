"""Accuracy, clean and under each attack of a protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, SerializeAsAny

from cembench.attacks import Attack, attacks
from cembench.evaluation.diff import Comparison, compared
from cembench.evaluation.section import Section, rate_cells
from cembench.evaluation.statistics import Rate
from cembench.util.display.charts import EMPTY, Cell, Table
from cembench.util.display.format import NOTHING, number, percent
from cembench.util.files.names import require_distinct
from cembench.util.settings import Settings, optional_field


class WorstClass(Settings):
    """The class with the lowest accuracy; the first of several.

    Attributes:
        name: of the class.
        correct: its images that are classified correctly.
        images: its images in all.
    """

    name: str
    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """The proportion of correct images."""
        return self.correct / self.images


class Figure(Rate):
    """An accuracy, under attack where there is one.

    Attributes:
        correct_8bit: images that are correct also when all are rounded to 8 bits.
        untried: survivors that an attack with a sample did not run all of its stages on.
        at_risk: how many of them these stages may succeed on, at most, by what they did to the
            sample (95 %). The lower end of the interval counts these as misclassified.
        outside: survivors on which the attack fooled the network outside the ball or [0, 1] alone,
            where nothing counts; of `worst_case`, those on which all attacks did. With many of
            them the accuracy says little of robustness.
        won: for an attack, the number of images on which each of its stages was first to succeed.
        seconds: wall time of the attack.
        stage_seconds: of its stages that had any image to attack, where there are several.
        worst_class: the class with the lowest accuracy. With few images in each, that of the worst
            of many is low by chance too.
    """

    correct_8bit: int
    untried: int = optional_field(0)
    at_risk: int = optional_field(0)
    outside: int = optional_field(0)
    won: dict[str, int] = {}
    seconds: float = 0.0
    stage_seconds: dict[str, float] = optional_field({})
    worst_class: WorstClass | None = optional_field(None)

    @property
    def accuracy_8bit(self) -> float:
        """The accuracy for 8-bit images."""
        return self.correct_8bit / self.images

    @property
    def mark(self) -> str:
        """What warns of images that were fooled outside the ball alone; empty for none."""
        return f" (⚠ {self.outside} fooled outside the ball)" if self.outside else ""

    @property
    def text(self) -> str:
        """The accuracy in percent, with its mark."""
        return percent(self.accuracy) + self.mark


# Versions of AutoAttack: labels of no other attack.
VERSIONS = {f"autoattack-{version}" for version in ("sampled", "rand", "plus", "custom")}

OUTSIDE = (
    "outside: on so many images the attack fooled the network outside the ball or [0, 1] alone, "
    "where nothing counts; its accuracy says little of robustness."
)

# What sampled stages do with an image: nothing, since there is no need to; attack it as one of the
# sample; attack it after all; leave it untried.
PARTS = ("", "drawn", "rest", "untried")


def _distinct(values: list[Attack]) -> list[Attack]:
    titles = [attack.title for attack in values]
    times, known = Counter(titles), {"clean", "worst_case", "curve", *attacks.names()}
    for title, attack in zip(titles, values, strict=True):
        reserved = title in known and title != attack.name
        if times[title] > 1 or reserved or attack.label in VERSIONS:
            raise ValueError(f"the label '{title}' is taken; give each attack its own")
    require_distinct(titles)
    return values


OneAttack = Annotated[SerializeAsAny[Attack], attacks.field()]
Attacks = Annotated[list[OneAttack], AfterValidator(_distinct)]


class RobustnessSection(Section[list[Attack], dict[str, Figure]]):
    """Attacks, each on every image that is classified correctly.

    The result has a figure for `clean` images, for each attack by its title, and `worst_case`.
    Attacks that minimise another norm than the threat model's have none: see `sections.minimal`.
    """

    key = "attacks"
    setting = (Attacks, [])
    result_key = "figures"
    result = (dict[str, Figure], {})
    always = True
    later = ("worst_class",)

    def compare(self, recorded: dict[str, Figure], again: dict[str, Figure]) -> list[Comparison]:
        """Compare counts one by one; then intervals and the successes of each stage."""
        rows = []
        for name in {**again, **recorded}:
            old, new = recorded.get(name), again.get(name)
            for title, key in ((name, "correct"), (f"{name} (8 bits)", "correct_8bit")):
                rows.append(Comparison(title, getattr(old, key, None), getattr(new, key, None)))
        shown = {"correct", "correct_8bit", "seconds", "stage_seconds"}
        before, now = (
            {name: figure.model_dump(exclude=shown) for name, figure in figures.items()}
            for figures in (recorded, again)
        )
        return [*rows, *compared("intervals and stages", before, now, self.later)]

    def columns(self, result: dict[str, Figure]) -> dict[str, Any]:
        """Return each accuracy with its interval, of 8-bit images, and of the worst class."""
        found: dict[str, Any] = {}
        for name, figure in result.items():
            found |= {
                f"{name}_acc": figure.accuracy,
                f"{name}_acc_low": figure.low,
                f"{name}_acc_high": figure.high,
                f"{name}_acc_8bit": figure.accuracy_8bit,
            }
            if figure.untried:
                found[f"{name}_untried"] = figure.untried
            if figure.outside:
                found[f"{name}_outside"] = figure.outside
            if figure.worst_class is not None:
                found[f"{name}_worst_class_acc"] = figure.worst_class.accuracy
        return found

    def details(self, result: dict[str, Figure]) -> list[Table]:
        """Return the table of accuracies, one row per attack."""
        rows = []
        for name, figure in result.items():
            won = ", ".join(_successes(figure))
            bits = f"{percent(figure.accuracy_8bit)} ({figure.correct_8bit} of {figure.images})"
            accuracy, correct = rate_cells(figure)
            if figure.untried:
                correct = Cell(f"{correct.text}, {figure.untried} untried")
            if figure.outside:
                correct = Cell(f"{correct.text}, ⚠ {figure.outside} outside")
            cells = [Cell(name), accuracy, correct, Cell.of(figure.accuracy_8bit, bits)]
            seconds = Cell.of(figure.seconds, number(figure.seconds, ".1f") + " s")
            rows.append([*cells, _worst(figure.worst_class), Cell(won or NOTHING), seconds])
        head = ["attack", "accuracy", "correct", "8-bit images", "worst class"]
        head += ["successes per stage", "time"]
        note = "With 95 % Wilson intervals. Successes: images that a stage was the first to break."
        if any(figure.untried for figure in result.values()):
            note += " Untried: the later stages attacked a random sample of the survivors and "
            note += "succeeded on none; the interval allows for what they might have done."
        if any(figure.outside for figure in result.values()):
            note += f" ⚠ {OUTSIDE}"
        return [Table("Accuracy", head, rows, note)] if rows else []


def _successes(figure: Figure) -> Iterator[str]:
    """Yield what each stage did: images that it was first to succeed on, and its time."""
    for stage in {**figure.stage_seconds, **figure.won}:
        seconds = figure.stage_seconds.get(stage)
        spent = "" if seconds is None else f" in {number(seconds, '.1f')} s"
        yield f"{stage} {figure.won.get(stage, 0)}{spent}"


def _worst(found: WorstClass | None) -> Cell:
    if found is None:
        return EMPTY
    text = f"{percent(found.accuracy)} ({found.name}, {found.correct} of {found.images})"
    return Cell.of(found.accuracy, text)
