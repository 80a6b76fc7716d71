"""All that is known of one run, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cembench.evaluation.record import Record
from cembench.evaluation.results import Bin, Density, Generation, SamplerFigures, Scores
from cembench.reporting.page.tables import (
    NONE,
    SEPARATION,
    Cell,
    Row,
    Table,
    change,
    number,
    separation,
    share,
    spread,
)
from cembench.util.yaml import to_yaml

ONLY = {  # settings of samplers that say something under others alone
    "clusters": lambda settings: settings.get("start") == "cluster",
    "norm": lambda settings: settings.get("eps") is not None,
    **dict.fromkeys(
        ("buffer", "renewed", "renewal"), lambda settings: settings.get("start") == "buffer"
    ),
}


def figures(record: Record) -> Iterator[Table]:
    """Return what a record is about: accuracies, samples, and what doubts them."""
    if record.figures:
        yield _accuracies(record)
    if record.sanity:
        rows = [
            Row([Cell(c.name), _verdict(c.verdict), number(c.figure), Cell(c.meaning)])
            for c in record.sanity
        ]
        yield Table("Sanity checks", ["check", "verdict", "figure", "meaning"], rows)
    if record.generation is not None:
        yield _samples(record.generation)


def more(record: Record) -> Iterator[Table]:
    """Return everything else that was measured."""
    if record.curve:
        rows = [Row([Cell(f"{point.eps:.4g}"), *share(point)]) for point in record.curve]
        yield Table("Other radii", ["ε", "accuracy", "correct"], rows)
    if record.density is not None:
        yield from _density(record.density)


def _verdict(text: str) -> Cell:
    return Cell(text, mark={"fail": "error"}.get(text, ""))


def _density(density: Density) -> Iterator[Table]:
    rows = [Row([Cell(k), spread(s), Cell(str(s.images))]) for k, s in density.energies.items()]
    yield Table("Energies", ["images", "LSE f(x, ·)", "count"], rows)
    rows = [
        Row([Cell(name.upper()), *share(push.accuracy), change(push)])
        for name, push in density.pushed.items()
    ]
    head = ["inside the ball", "accuracy", "correct", "mean change of LSE"]
    yield Table("PGD beside TA", head, rows)
    rows = [
        Row([Cell(f"{title}, by {score}"), *separation(one), Cell(str(one.others))])
        for title, scores in density.outside.items()
        for score, one in scores.items()
    ]
    if rows:
        yield Table("Test images told from others", ["images", *SEPARATION, "others"], rows)
    bins = [b for b in density.calibration.bins if b.images]
    rows = [Row([Cell(f"{b.low:.2f}–{b.high:.2f}"), *_bin(b), Cell(str(b.images))]) for b in bins]
    note = f"Expected calibration error {density.calibration.ece:.2%}."
    yield Table("Calibration", ["confidence", "mean", "accuracy", "images"], rows, note)


def _bin(one: Bin) -> list[Cell]:
    return [number(one.confidence, "{:.1%}"), number(one.accuracy, "{:.1%}")]


def _accuracies(record: Record) -> Table:
    rows = []
    for name, figure in record.figures.items():
        won = ", ".join(f"{stage} {count}" for stage, count in figure.won.items())
        cells = [
            Cell(name),
            *share(figure),
            number(figure.accuracy_8bit, "{:.1%}", f"{figure.correct_8bit} of {figure.images}"),
            Cell(won or "–"),
            number(figure.seconds, "{:.1f} s"),
        ]
        rows.append(Row(cells))
    head = ["attack", "accuracy", "correct", "8-bit images", "broken by stage", "time"]
    return Table("Accuracy", head, rows, "Intervals: 95 %, Wilson.")


def _samples(generation: Generation) -> Table:
    rows = []
    for title, found in generation.samplers.items():
        if found.error is not None:
            rows.append(Row([Cell(title), Cell(found.error), *[NONE] * 8]))
            continue
        rows.append(Row([Cell(title), *_scores(found.samples), *_own(found)]))
        rows.append(Row([Cell(f"{title}: its seeds"), *_scores(found.seeds), NONE, NONE]))
    rows.append(Row([Cell("real images"), *_scores(generation.floor), NONE, NONE]))
    head = ["images", "KID ↓", "FD ↓", "IS ↑", "precision ↑", "recall ↑", "as intended ↑"]
    head += ["nearest", "own view ↑", "gain ↑"]
    note = (
        f"{generation.count} images each, beside the {generation.reference} images "
        f"({generation.extractor}). KID ± its standard error; as intended: what an independent "
        f"classifier says, which is right on {generation.judge_real_acc:.1%} of real images; own "
        "view: what the network itself says; nearest: median pixel distance to the nearest "
        "training image; gain: KID of the seeds minus KID of the samples, with its 95 % interval."
    )
    return Table("Samples", head, rows, note)


def _own(found: SamplerFigures) -> list[Cell]:
    gain = NONE
    if found.gain is not None:
        gain = number(found.gain, note=f"{found.gain_low:.3g} to {found.gain_high:.3g}")
    return [number(found.own_acc, "{:.1%}"), gain]


def _scores(scores: Scores | None) -> list[Cell]:
    if scores is None:
        return [NONE] * 7
    return [
        number(scores.kid, note=f"± {scores.kid_error:.2g}"),
        number(scores.fd, "{:.4g}"),
        number(scores.inception_score, "{:.2f}"),
        number(scores.precision, "{:.2f}"),
        number(scores.recall, "{:.2f}"),
        number(scores.judge_acc, "{:.1%}"),
        number(scores.nearest),
    ]


def facts(record: Record) -> dict[str, str]:
    """Return where figures come from."""
    plain: dict[str, Any] = {
        "method": record.method,
        "network": f"{record.model}, {record.parameters:,} parameters ({record.kind})",
        "labels seen in training": record.labels,
        "data": record.data.get("name", record.dataset),
        "images": f"{record.split} split, fingerprint {record.fingerprint}",
        "threat model": record.threat,
        "protocol": f"{record.protocol.get('name')}, digest {record.protocol_digest}",
        "seed of training": record.seed,
        "seed of the protocol": record.protocol.get("seed"),
        "epoch": f"{record.epoch}{'' if record.finished else ', training unfinished'}",
        "times rolled back": record.divergences,
        "gradients of training": f"{record.gradients:,}",
        "seconds": _seconds(record),
        "checkpoint": record.checkpoint_sha256,
        "weights": record.weights_sha256,
        "table of verdicts": record.table_sha256,
        **{f"input: {name}": value for name, value in record.inputs.items()},
        "recipe": record.recipe,
        **{key: value for key, value in record.environment.items() if value is not None},
        "created": record.created,
    }
    return {key: str(value) for key, value in plain.items() if value not in (None, "")}


def _seconds(record: Record) -> str:
    training = "" if record.train_seconds is None else f"{record.train_seconds:,.0f} training, "
    return f"{training}{record.seconds:,.0f} evaluation"


def protocol(record: Record) -> str:
    """Return the resolved protocol."""
    return to_yaml(record.protocol)


def settings(sampler: Mapping[str, Any]) -> str:
    """Return the settings of a sampler in one line, without those that say nothing here."""
    return ", ".join(
        f"{key} {_plain(value)}"
        for key, value in sampler.items()
        if value is not None and key not in ("name", "label")
        if key not in ONLY or ONLY[key](sampler)
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
