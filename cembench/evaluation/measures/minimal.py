"""Smallest perturbations, counted from the sizes in the table of verdicts."""

from __future__ import annotations

from cembench.evaluation.measure import Measurement
from cembench.evaluation.sections.minimal import Minimal, MinimalConfig


def measure(config: MinimalConfig, measurement: Measurement) -> dict[str, Minimal]:
    """Count the sizes of each attack that has any."""
    found = {}
    for attack in measurement.context.protocol.attacks:
        norm, column = attack.minimises, f"{attack.title}_size"
        if norm is not None and column in measurement.table:
            seconds = measurement.seconds.get(attack.title, 0.0)
            sizes = measurement.table[column]
            found[attack.title] = Minimal.of(sizes, norm, config.eps.get(norm), seconds)
    return found
