"""Model selection by the metrics of epochs."""

from __future__ import annotations

History = list[dict[str, float]]
MONITORED = {"val_clean_acc": "clean", "val_pgd_acc": "pgd", "val_knn_acc": "k-NN"}


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
