"""Accuracy, clean and under each attack of a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, SerializeAsAny

from cembench.attacks import Attack, attacks
from cembench.evaluation.diff import Comparison, compared
from cembench.evaluation.section import Section, rate_cells
from cembench.evaluation.statistics import Rate, rate
from cembench.util.display.charts import Cell, Table
from cembench.util.display.format import NOTHING, number, percent

if TYPE_CHECKING:
    import pandas as pd


class Figure(Rate):
    """An accuracy, under attack where there is one.

    Attributes:
        correct_8bit: images that are correct also when all are rounded to 8 bits.
        won: for an attack, the number of images on which each of its stages was first to succeed.
        seconds: wall time of the attack.
    """

    correct_8bit: int
    won: dict[str, int] = {}
    seconds: float = 0.0

    @property
    def accuracy_8bit(self) -> float:
        """The accuracy for 8-bit images."""
        return self.correct_8bit / self.images


def _distinct(values: list[Attack]) -> list[Attack]:
    titles = [attack.title for attack in values]
    for title, attack in zip(titles, values, strict=True):
        reserved = {"clean", "worst_case", "curve", *attacks.names()} - {attack.name}
        if titles.count(title) > 1 or title in reserved:
            raise ValueError(f"the label '{title}' is taken; give each attack its own")
    return values


OneAttack = Annotated[SerializeAsAny[Attack], attacks.field()]
Attacks = Annotated[list[OneAttack], AfterValidator(_distinct)]


class RobustnessSection(Section[list[Attack], dict[str, Figure]]):
    """Attacks, each on every image that is classified correctly.

    The result has a figure for `clean` images, for each attack by its title, and `worst_case`.
    """

    key = "attacks"
    setting = (Attacks, [])
    result_key = "figures"
    result = (dict[str, Figure], {})
    always = True

    def compare(self, recorded: dict[str, Figure], again: dict[str, Figure]) -> list[Comparison]:
        """Compare counts one by one; then intervals and the successes of each stage."""
        rows = []
        for name in {**again, **recorded}:
            old, new = recorded.get(name), again.get(name)
            for title, key in ((name, "correct"), (f"{name} (8 bits)", "correct_8bit")):
                rows.append(Comparison(title, getattr(old, key, None), getattr(new, key, None)))
        shown = {"correct", "correct_8bit", "seconds"}
        rest = [
            {name: figure.model_dump(exclude=shown) for name, figure in figures.items()}
            for figures in (recorded, again)
        ]
        return [*rows, *compared("intervals and stages", *rest)]

    def columns(self, result: dict[str, Figure]) -> dict[str, Any]:
        """Return each accuracy with its interval, and that of 8-bit images."""
        found: dict[str, Any] = {}
        for name, figure in result.items():
            found |= {
                f"{name}_acc": figure.accuracy,
                f"{name}_acc_low": figure.low,
                f"{name}_acc_high": figure.high,
                f"{name}_acc_8bit": figure.accuracy_8bit,
            }
        return found

    def details(self, result: dict[str, Figure]) -> list[Table]:
        """Return the table of accuracies, one row per attack."""
        rows = []
        for name, figure in result.items():
            won = ", ".join(f"{stage} {count}" for stage, count in figure.won.items())
            bits = f"{percent(figure.accuracy_8bit)} ({figure.correct_8bit} of {figure.images})"
            cells = [Cell(name), *rate_cells(figure), Cell.of(figure.accuracy_8bit, bits)]
            seconds = Cell.of(figure.seconds, number(figure.seconds, ".1f") + " s")
            rows.append([*cells, Cell(won or NOTHING), seconds])
        head = ["attack", "accuracy", "correct", "8-bit images", "successes per stage", "time"]
        note = "With 95 % Wilson intervals. Successes: images that a stage was the first to break."
        return [Table("Accuracy", head, rows, note)] if rows else []


def count(table: pd.DataFrame, attacks: list[str], seconds: dict[str, float]) -> dict[str, Figure]:
    """Count every figure from a table of verdicts, one row per image."""
    right = table["clean_pred"] == table["label"]
    right_8bit = right & (table["clean_8bit_pred"] == table["label"])
    figures = {"clean": figure(right, right_8bit)}
    worst, worst_8bit = right, right_8bit
    for attack in attacks:
        survives = right & ~table[f"{attack}_broken"]
        survives_8bit = right_8bit & ~table[f"{attack}_broken_8bit"]
        won = table.loc[table[f"{attack}_broken"], f"{attack}_by"].value_counts()
        figures[attack] = figure(survives, survives_8bit).model_copy(
            update={
                "won": {str(stage): int(number) for stage, number in won.items()},
                "seconds": round(seconds.get(attack, 0.0), 3),
            }
        )
        worst, worst_8bit = worst & survives, worst_8bit & survives_8bit
    return {**figures, "worst_case": figure(worst, worst_8bit)} if attacks else figures


def figure(correct: pd.Series, correct_8bit: pd.Series) -> Figure:
    """Count two columns of booleans."""
    return Figure(**rate(correct).dump(), correct_8bit=int(correct_8bit.sum()))
