"""Pixel normalisation of an imported network: inferred from training images, or checked.

A network is tried on training images under each known normalisation. Its outputs are checked too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binom, binomtest
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cembench.data.split import Split, subset
from cembench.data.statistics import pixel_statistics
from cembench.models.classifier import called
from cembench.models.gradient import missing_gradient
from cembench.util.errors import CembenchError
from cembench.util.frozen import exact, frozen

Statistics = tuple[Tensor, Tensor]

IMAGES = 256  # training images that a network is tried on
BATCH = 64
CLOSE = 0.02  # accuracies that differ by less are compared by the loss
MAX_P_VALUE = 0.001  # of the tests that one accuracy is higher than another, or than by chance
KNOWN: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0,), (1.0,)),
    "half": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar10-narrow": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "bytes": ((0.0,), (1 / 255,)),
}


@dataclass(frozen=True)
class Trial:
    """The answers of a network to N images under one normalisation.

    Attributes:
        correct: which images it classifies as labelled, N booleans.
        loss: its mean cross-entropy at the best temperature, so that a contrast which only makes
            the network more confident does not count.
    """

    correct: Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        """The fraction of images that are classified as labelled."""
        return float(self.correct.float().mean())


def normalisation(text: str, whole: Split) -> Statistics:
    """Return pixel means and standard deviations, given by name or as numbers.

    Args:
        text: a name of `KNOWN`, `data` for those of the training images, or means and deviations
            on [0, 1] such as `0.5,0.5,0.5/0.2,0.2,0.2`, one for all channels or one per channel.
        whole: the training images.

    Raises:
        CembenchError: for anything else.
    """
    if text == "data":
        return pixel_statistics(whole)
    try:
        parts = KNOWN.get(text) or [[float(v) for v in p.split(",")] for p in text.split("/")]
        mean, std = (torch.tensor(part).expand(whole.shape[0]).clone() for part in parts)
    except (ValueError, RuntimeError) as error:
        raise CembenchError(
            f"--normalise {text}: for {whole.shape[0]} channels give auto, "
            f"{', '.join([*KNOWN, 'data'])}, or means/deviations such as 0.5,0.5,0.5/0.2,0.2,0.2"
        ) from error
    if not bool((std > 0).all() & mean.isfinite().all() & std.isfinite().all()):
        raise CembenchError(f"--normalise {text}: give deviations above 0, and finite numbers")
    return mean, std


def infer_normalisation(net: nn.Module, whole: Split, given: str) -> tuple[Statistics, str]:
    """Return the normalisation that a network was trained with, and a sentence on it.

    It is the one with the highest accuracy on 256 training images, or as many as there are; among
    close accuracies, the one with the lowest loss. Test images are not used.

    Raises:
        CembenchError: when outputs are no logits, when another normalisation than the given one has
            a significantly higher accuracy, or when no accuracy is better than chance.
    """
    some = subset(whole, IMAGES)[0]
    fitting = {
        name: normalisation(name, whole)
        for name, (mean, _) in KNOWN.items()
        if len(mean) in (1, whole.shape[0])
    }
    choices = fitting | {"data": normalisation("data", whole)}
    if given != "auto":
        choices[given] = normalisation(given, whole)
    found = {name: try_on(net, some, statistics) for name, statistics in choices.items()}
    top = max(trial.accuracy for trial in found.values())
    close = [name for name in found if found[name].accuracy >= top - CLOSE]
    best = min(close, key=lambda name: found[name].loss)
    seen = {name: f"{found[name].accuracy:.1%} with {name}" for name in found}
    chance = by_chance(found[best].correct, some)
    if given != "auto" and not chance and _better(found[best], found[given]):
        raise CembenchError(
            f"--normalise {given}: the network is right on {seen[given]}, but on {seen[best]}, of "
            f"{len(some)} images; use --normalise {best}"
        )
    if given != "auto":
        return choices[given], f"normalisation {given}, as given: right on {seen[given]}"
    if chance:
        listed = ", ".join(seen.values())
        raise CembenchError(
            f"under no known normalisation is the network better than chance on {len(some)} "
            f"training images ({listed}); are weights, classes and their order those of the data "
            "set? --normalise MEANS/DEVIATIONS imports it all the same"
        )
    others = ", ".join(seen[name] for name in found if name != best)
    return choices[best], f"normalisation recognised: right on {seen[best]}; {others}"


def try_on(net: nn.Module, some: Split, statistics: Statistics) -> Trial:
    """Classify some images under a normalisation, in evaluation mode.

    Raises:
        CembenchError: when the network raises an error, and when outputs are no logits, unless no
            attack could follow their gradients anyway.
    """
    mean, std = (values.reshape(1, -1, 1, 1) for values in statistics)
    with frozen(net), torch.no_grad(), exact():
        batches = [(x - mean) / std for x in some.pixels().split(BATCH)]
        out = torch.cat([called(net, x).float() for x in batches])
        if not missing_gradient(net, batches[0][:2]):
            require_logits(out)
    losses = [cross_entropy(out / scale, some.labels) for scale in torch.logspace(-2, 3, 51)]
    loss = float(torch.stack(losses).nan_to_num(torch.inf).min())
    return Trial(out.argmax(1) == some.labels, loss)


def require_logits(out: Tensor) -> None:
    """Refuse outputs N×K that are probabilities or their logarithms: attacks need logits.

    Raises:
        CembenchError: saying which of the two they are.
    """
    if bool((out >= 0).all()) and float((out.sum(1) - 1).abs().max()) < 1e-3:
        what = "probabilities"
    elif bool((out <= 0).all()) and float(out.logsumexp(1).abs().max()) < 1e-3:
        what = "logarithms of probabilities"
    else:
        return
    raise CembenchError(f"the network returns {what}, not logits; leave out the softmax at its end")


def _better(one: Trial, other: Trial) -> bool:
    """Return whether one accuracy is significantly higher, by McNemar's exact test."""
    won = int((one.correct & ~other.correct).sum())
    lost = int((other.correct & ~one.correct).sum())
    return won > lost and binomtest(won, won + lost).pvalue < MAX_P_VALUE


def by_chance(correct: Tensor, some: Split) -> bool:
    """Return whether always naming the most common class could give as many correct answers."""
    commonest = float(some.labels.bincount().max()) / len(some)
    return bool(binom.sf(int(correct.sum()) - 1, len(some), commonest) > MAX_P_VALUE)
