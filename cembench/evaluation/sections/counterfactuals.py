"""Counterfactuals: test images changed as little as it takes to be read as another class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from cembench.energy.threat import NormName
from cembench.evaluation.section import GatedValue, Section, rate_cells
from cembench.evaluation.sections.samples import Scores
from cembench.evaluation.statistics import Rate
from cembench.samplers.counterfactual import Counterfactual
from cembench.util.display.charts import EMPTY, Cell, Chart, Table
from cembench.util.display.format import number, percent, with_error
from cembench.util.settings import Count, Fraction, Positive, Settings

HEAD = ["radius", "class reached ↑", "distance ↓", "confidence", "KID to the class ↓"]
HEAD += ["KID ↓", "FD ↓", "classifier agreement ↑"]
NOTE = (
    "Test images changed, in a ball, until the network reads them as another class with a "
    "confidence of {level:g}; compare networks at the same confidence. Distance: median of the "
    "changes that reached it. KID to the class: counterfactuals against real images of their new "
    "class, mean over classes ± its standard error. KID and FD compare all of them with the whole "
    "reference, in which their originals may be: images that are not changed score best there. "
    "Classifier agreement: what an independent classifier takes for its new class."
)


class CounterfactualsConfig(Settings):
    """Settings of the counterfactuals (`counterfactuals` in a protocol).

    KID, FD and the independent classifier are those of the reference in `samples`; without it
    there are none.

    Attributes:
        eps: radii of balls around test images, rising, in pixels. An image that reached its class
            in one ball is not searched again in larger ones.
        norm: norm of the balls.
        target: the new class of each image: the second most likely one (`likely`), or a `random`
            one, which is the same for all networks.
        confidence: what the network's probability of that class has to reach.
        steps: gradients per image and radius at most; each is 2.5 ε / steps long.
    """

    eps: Annotated[list[Positive], Field(min_length=1)]
    norm: NormName = "l2"
    target: Literal["likely", "random"] = "likely"
    confidence: Fraction = 0.9
    steps: Count = 100

    @field_validator("eps")
    @classmethod
    def _rising(cls, values: list[float]) -> list[float]:
        if sorted(set(values)) != values:
            raise ValueError("the radii must rise")
        return values

    def searches(self) -> dict[str, Counterfactual]:
        """Return the search in each ball, by the title of its columns; radii rise."""
        norm, confidence, steps = self.norm, self.confidence, self.steps
        searches = [
            Counterfactual(eps=eps, norm=norm, confidence=confidence, steps=steps)
            for eps in self.eps
        ]
        return {f"counterfactual-{one.norm}-{one.eps:.6g}": one for one in searches}


class CounterfactualFigures(Settings):
    """Counterfactuals in one ball.

    Attributes:
        eps: the radius.
        norm: the norm.
        reached: images that reached their class.
        distance: median size of the changes that did; None where none did.
        confidence: mean of the network's probabilities of the new classes, over all images.
        scores: all images compared with the reference; None without one.
        class_kid: KID against real images of the new class, mean over counterfactuals; of classes
            with five of both.
        class_kid_error: its standard error.
    """

    eps: float
    norm: str
    reached: Rate
    distance: float | None
    confidence: float
    scores: Scores | None = None
    class_kid: float | None = None
    class_kid_error: float | None = None


class Counterfactuals(Settings):
    """Counterfactuals of one checkpoint.

    Attributes:
        confidence: what they had to reach.
        originals: the images before any change, read as the new classes: confidence and scores.
        balls: figures by the title of the ball, whose radii rise.
    """

    confidence: float
    originals: CounterfactualFigures
    balls: dict[str, CounterfactualFigures]


class CounterfactualsSection(Section[CounterfactualsConfig | None, Counterfactuals | None]):
    """Each attacked image is changed until the network reads it as another class."""

    key = "counterfactuals"
    setting = (CounterfactualsConfig | None, None)
    result_key = "counterfactuals"
    result = (Counterfactuals | None, None)
    optional = True

    def columns(self, result: Counterfactuals | None) -> dict[str, Any]:
        """Return the figures of each ball."""
        row: dict[str, Any] = {}
        for title, found in ({} if result is None else result.balls).items():
            scores = found.scores
            row |= {
                f"{title}_reached": found.reached.accuracy,
                f"{title}_distance": found.distance,
                f"{title}_confidence": found.confidence,
                f"{title}_class_kid": found.class_kid,
                f"{title}_kid": scores and scores.kid,
                f"{title}_fd": scores and scores.fd,
                f"{title}_judge_acc": scores and scores.judge_acc,
            }
        return row

    def panels(self, records: Mapping[str, Any]) -> list[Chart]:
        """Return a table of all records that have counterfactuals."""
        found = {name: one.counterfactuals for name, one in records.items() if one.counterfactuals}
        if not found:
            return []
        rows = [
            [Cell(name), *cells] for name, result in found.items() for cells in _rows(result)[1:]
        ]
        table = Table("Counterfactuals", ["run", *HEAD], rows)
        note = NOTE.format(level=next(iter(found.values())).confidence)
        return [Chart("counterfactuals", "Counterfactuals", note, table=table)]

    def details(self, result: Counterfactuals | None) -> list[Table]:
        """Return the table of radii; the originals come first."""
        if result is None:
            return []
        note = NOTE.format(level=result.confidence)
        return [Table("Counterfactuals", HEAD, _rows(result), note)]

    def gated(self, result: Counterfactuals | None) -> dict[str, GatedValue]:
        """Return the KID to the new classes in each ball."""
        return {
            f"class_kid {title}": GatedValue(
                value=found.class_kid, tolerance=round(3 * found.class_kid_error, 6), better="lower"
            )
            for title, found in ({} if result is None else result.balls).items()
            if found.class_kid is not None and found.class_kid_error is not None
        }


def _rows(result: Counterfactuals) -> list[list[Cell]]:
    first = [Cell("originals"), *_cells(result.originals)]
    return [first, *([Cell(f"{f.norm} {f.eps:.4g}"), *_cells(f)] for f in result.balls.values())]


def _cells(found: CounterfactualFigures) -> list[Cell]:
    kid, scores = EMPTY, found.scores
    if found.class_kid is not None and found.class_kid_error is not None:
        kid = Cell.of(found.class_kid, with_error(found.class_kid, found.class_kid_error))
    cells = [
        rate_cells(found.reached)[0],
        Cell.of(found.distance, number(found.distance)),
        Cell.of(found.confidence, number(found.confidence, ".3f")),
        kid,
    ]
    if scores is None:
        return [*cells, EMPTY, EMPTY, EMPTY]
    return [
        *cells,
        Cell.of(scores.kid, with_error(scores.kid, scores.kid_error)),
        Cell.of(scores.fd, number(scores.fd, ".4g")),
        Cell.of(scores.judge_acc, percent(scores.judge_acc)),
    ]
