"""Reference classifier: a linear one on features of real images, fitted once and kept on disk."""

from __future__ import annotations

import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cembench.evaluation.extractors import kept
from cembench.evaluation.extractors.features import hash_of
from cembench.util.files import digest

VERSION = 1  # raise it when the fit changes, so that no kept classifier outlives that
FITTED = ("coef_", "intercept_", "classes_")


def reference_classifier(features: Tensor, labels: Tensor) -> LogisticRegression:
    """Return the linear classifier of features N×D with labels N.

    It is kept in the user's cache, under a name made of the features and labels.
    """
    how = [VERSION, sklearn.__version__, hash_of(features), hash_of(labels)]

    def make() -> dict[str, Tensor]:
        classifier = fit_reference_classifier(features, labels)
        return {name: torch.from_numpy(getattr(classifier, name)) for name in FITTED}

    return _of(kept.obtain(f"classifier-{digest(how)}", make))


def fit_reference_classifier(features: Tensor, labels: Tensor) -> LogisticRegression:
    """Return the linear classifier of features N×D with labels N.

    It is the optimum to many digits: short of it, where solvers stop by default, another machine's
    rounding changes what it says of an image in a hundred.
    """
    classifier = LogisticRegression(C=100.0, solver="newton-cg", tol=1e-8, max_iter=1000)
    return classifier.fit(features.double().numpy(), labels.numpy())


def _of(values: dict[str, Tensor]) -> LogisticRegression:
    classifier = LogisticRegression()
    for name in FITTED:
        setattr(classifier, name, values[name].numpy())
    return classifier
