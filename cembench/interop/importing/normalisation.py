"""The pixel normalisation and the outputs of an imported network: inferred, or checked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binom, binomtest
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cembench.data.split import Split, subset
from cembench.data.statistics import pixel_statistics
from cembench.util.errors import CembenchError
from cembench.util.frozen import exact, frozen

Statistics = tuple[Tensor, Tensor]

IMAGES = 256
BATCH = 64
CLOSE = 0.02
DOUBT = 0.001
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
class Reading:
    """What a network makes of images under one normalisation.

    Attributes:
        statistics: pixel means and deviations, a channel each.
        right: which images it classifies as labelled, N booleans.
        loss: its mean cross-entropy at the temperature that suits it best, so that a contrast
            which makes the network bolder counts for nothing.
    """

    statistics: Statistics
    right: Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float(self.right.float().mean())


def normalisation(text: str, whole: Split) -> Statistics:
    """Return the pixel means and deviations that a name, or numbers, stand for.

    Args:
        text: a name of `KNOWN`, `data` for those of the training images, or means and deviations
            on [0, 1] such as `0.5,0.5,0.5/0.2,0.2,0.2`, one for all channels or one each.
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
    """Return the normalisation of a network, and a sentence on it.

    It is told by 256 training images, or what there is, that the network is right on: test images
    play no part. Of several that are as right the one with the lowest loss is taken.

    Args:
        net: normalised images to logits.
        whole: the training images.
        given: the normalisation, or `auto`.

    Raises:
        CembenchError: when outputs are no logits, when another normalisation than the given one is
            clearly right more often, or when none is right more often than by chance.
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
    found = {name: read(net, some, statistics) for name, statistics in choices.items()}
    top = max(reading.accuracy for reading in found.values())
    close = [name for name in found if found[name].accuracy >= top - CLOSE]
    best = min(close, key=lambda name: found[name].loss)
    seen = {name: f"{found[name].accuracy:.1%} with {name}" for name in found}
    lucky = by_chance(found[best].right, some)
    if given != "auto" and not lucky and _clearly(found[best], found[given]):
        raise CembenchError(
            f"--normalise {given}: the network is right on {seen[given]}, but on {seen[best]}, of "
            f"{len(some)} training images; use --normalise {best}"
        )
    if given != "auto":
        return found[given].statistics, f"normalisation {given}, as given: right on {seen[given]}"
    if lucky:
        listed = ", ".join(seen.values())
        raise CembenchError(
            f"under no known normalisation is the network better than chance on {len(some)} "
            f"training images ({listed}); are weights, classes and their order those of the data "
            "set? --normalise MEANS/DEVIATIONS imports it all the same"
        )
    others = ", ".join(seen[name] for name in found if name != best)
    return found[best].statistics, f"normalisation inferred: right on {seen[best]}; {others}"


def read(net: nn.Module, some: Split, statistics: Statistics) -> Reading:
    """Ask a network for some images, in evaluation mode.

    Raises:
        CembenchError: when it gives no logits.
    """
    mean, std = (values.reshape(1, -1, 1, 1) for values in statistics)
    with frozen(net), torch.no_grad(), exact():
        out = torch.cat([net((x - mean) / std).float() for x in some.pixels().split(BATCH)])
    require_logits(out)
    losses = [cross_entropy(out / scale, some.labels) for scale in torch.logspace(-2, 3, 51)]
    loss = float(torch.stack(losses).nan_to_num(torch.inf).min())
    return Reading(statistics, out.argmax(1) == some.labels, loss)


def require_logits(out: Tensor) -> None:
    """Refuse outputs N×K that are probabilities or their logarithms.

    Raises:
        CembenchError: naming what they are. Attacks need logits, and energies too.
    """
    total = out.logsumexp(1).abs().max()
    positive, one = bool((out >= 0).all()), (out.sum(1) - 1).abs().max()
    what = ""
    if positive and float(one) < 1e-3:
        what = "probabilities"
    elif bool((out <= 0).all()) and float(total) < 1e-3:
        what = "logarithms of probabilities"
    if what:
        raise CembenchError(
            f"the network returns {what}, not logits; leave out the softmax at its end"
        )


def _clearly(better: Reading, worse: Reading) -> bool:
    """Tell whether one is right more often than the other, by McNemar's exact test."""
    won, lost = int((better.right & ~worse.right).sum()), int((worse.right & ~better.right).sum())
    return won > lost and binomtest(won, won + lost).pvalue < DOUBT


def by_chance(right: Tensor, some: Split) -> bool:
    """Tell whether so many right answers could come from always naming the commonest class."""
    share = float(some.labels.bincount().max()) / len(some)
    return bool(binom.sf(int(right.sum()) - 1, len(some), share) > DOUBT)
