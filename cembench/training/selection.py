"""Model selection on images held out of the training split; test images are never used."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.data.split import Split
from cembench.samplers import SamplerContext
from cembench.samplers.pgd import PGD
from cembench.training.config import Experiment
from cembench.util.frozen import frozen
from cembench.util.rng import derive, generator_of

History = list[dict[str, float]]
CLEAN = 10_000  # held-out images that clean accuracy is of, at most
MONITORED = {"val_clean_acc": "clean", "val_pgd_acc": "pgd", "val_knn_acc": "k-NN"}


def validate(model: nn.Module, held: Split, config: Experiment, batch: int) -> dict[str, float]:
    """Return clean accuracy on held-out images, and PGD accuracy on at most `images` of them.

    PGD has to fail within every threat model that the experiment trains against. It has the same
    random starts in every epoch. Clean accuracy is of the first 10,000 images, or of `images` if
    that is more. Encoders have metrics of their own.
    """
    if (found := config.method.validation_metrics(model, held, config.seed)) is not None:
        return found
    settings = config.validation
    attack = PGD(steps=settings.steps)
    generator = generator_of(derive(config.seed, "validation"), held.device)
    contexts = [SamplerContext(threat, generator) for threat in config.threats]
    clean, attacked = 0, 0
    limit = min(settings.images, len(held))
    judged = min(max(CLEAN, limit), len(held))
    for start in range(0, judged, batch):
        rows = slice(start, min(start + batch, judged))
        x, y = held.pixels(rows), held.labels[rows]
        clean += correct(model, x, y)
        x, y = x[: max(0, limit - start)], y[: max(0, limit - start)]
        for context in contexts:
            if len(y):
                right = classified(model, attack.search(model, x, y, context), y)
                x, y = x[right], y[right]
        attacked += len(y)
    return {"val_clean_acc": clean / judged, "val_pgd_acc": attacked / limit}


def best_epoch(history: History, select: str, first: int = 1) -> int:
    """Return the epoch to keep, `first` or later; 0 for none.

    Ties go to clean accuracy, then to the later epoch.
    """
    keys = {"robust": ["val_pgd_acc", "val_clean_acc"], "clean": ["val_clean_acc"], "last": []}
    order = [*keys[select], "epoch"]
    judged = [tuple(row[key] for key in order) for row in history[first - 1 :] if order[0] in row]
    return int(max(judged)[-1]) if judged else 0


def summary(sums: dict[str, float], steps: int, history: History) -> str:
    """Return a short progress text: the mean loss and the last validation metrics."""
    parts = [f"loss {sums['loss'] / steps:.3f}"] if sums else []
    for key, label in MONITORED.items():
        known = [row[key] for row in history if key in row]
        parts += [f"{label} {known[-1]:.1%}"] if known else []
    return " ".join(parts)


def classified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return for each image whether it is classified correctly, in evaluation mode."""
    with frozen(model), torch.no_grad():
        return model(x).argmax(1) == y


def correct(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return the number of correctly classified images, in evaluation mode."""
    return int(classified(model, x, y).sum())
