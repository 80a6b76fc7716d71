"""Columns of tables in words, as far as their names say it."""

from __future__ import annotations

import re

from cembench.evaluation.record import Header
from cembench.evaluation.sections.threats import UNION, threat_of
from cembench.util.display.column import Column
from cembench.util.display.keys import attributes

NAMES = {
    "runs": "the experiment, whose seeds are averaged",
    "seeds": "how many seeds are averaged",
    "threats": "the threat models of the union",
    "n_images": "images that every accuracy counts",
    "eval_seconds": "wall time of the evaluation",
    "train_gradients": "gradient evaluations of training, images times steps",
    "protocol": "the name of the protocol",
    "cembench": "the version that measured it",
    "sanity_failed": "the sanity checks that fail; in means, in how many seeds one fails",
    "pareto": "whether no other row is at least as good on both axes and better on one",
    "sampler": "the sampler, and its label",
    "start": "where chains start",
    "kid_floor": "KID of real images that are not the reference",
    "fd_floor": "FD of real images that are not the reference",
    "judge_acc_real": "proportion of real images that an independent classifier reads rightly",
    "ece": "expected calibration error",
    "nll": "negative log-likelihood of the labels",
    "brier": "Brier score",
}
METRICS = {
    "kid": "kernel distance of samples from real images, lower is better",
    "kid_error": "standard error of the KID",
    "kid_seeds": "KID of the initial images",
    "gain": "KID of the initial images minus KID of the samples",
    "fd": "Fréchet distance of samples from real images, lower is better",
    "is": "Inception Score",
    "inception_score": "Inception Score",
    "precision": "share of samples that lie where real images are",
    "recall": "share of real images that lie where samples are",
    "judge_acc": "share of samples that an independent classifier assigns to the intended class",
    "images_per_second": "samples drawn per second of wall time",
}
ENDS = {  # of the name of a figure
    "_low": "lower end of the 95 % interval of {}",
    "_high": "upper end of the 95 % interval of {}",
    "_8bit": "{} with all images rounded to 8 bits",
    "_std": "standard deviation of {} over seeds",
    "_half": "half the 95 % t-interval of the mean of {}",
    "_runs": "how many seeds have {}",
    "_seeds": "{} of the initial images",
    "_untried": "survivors that the costly attacks of {} did not attack",
    "_outside": "images on which {} succeeds outside the ball alone",
}
ACCURACY = "proportion of images classified correctly"


def about(column: str) -> str:
    """Return what a column of a table is; an empty text where its name does not say it."""
    known = attributes(Header.__doc__)
    if text := {**known, **METRICS, **NAMES}.get(column):
        return text
    sampled = Column.parse(column)
    if sampled is not None and sampled.metric in METRICS:
        where = f"{sampled.sampler}, {sampled.count} samples, features of {sampled.extractor}"
        return f"{METRICS[sampled.metric]} ({where})"
    for end, text in ENDS.items():
        if column.endswith(end):
            return text.format(column.removesuffix(end))
    return _accuracy(column) if column.endswith("_acc") else ""


def _accuracy(column: str) -> str:
    threat, name = threat_of(column), column.removesuffix("_acc")
    name = name.removeprefix(f"{threat} ") if threat else name
    under = f" under {threat}" if threat else ""
    if name.endswith("_worst_class"):
        return f"{ACCURACY} of the class with the lowest one, {name.removesuffix('_worst_class')}"
    if name in ("clean", "worst_case", UNION):
        by = {"clean": "", "worst_case": " under every attack", UNION: " under every threat model"}
        return f"{ACCURACY}{by[name]}{under}"
    attacked = re.fullmatch(r"[\w.@+-]+", name)
    return f"{ACCURACY} that survive {name}{under}" if attacked else ""
