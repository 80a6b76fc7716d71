"""Norms of perturbations: one file and class per norm, with everything that depends on the norm.

A class here and its entry in `NORMS` add a norm to threat models, training, PGD, verdicts, 8-bit
rounding, sanity checks, and to the official AutoAttack if pyautoattack has it. The steps of
APGD, FAB and Square differ from norm to norm: the attacks of `autoattack-fast` have tables of the
norms that they know. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from cembench.energy.norms.ball import LARGEST_IMAGE, Ball, per_row, unit
from cembench.energy.norms.l0 import L0
from cembench.energy.norms.l1 import L1
from cembench.energy.norms.l2 import L2
from cembench.energy.norms.linf import Linf
from cembench.util.errors import CembenchError

__all__ = ["L0", "L1", "L2", "LARGEST_IMAGE", "NORMS", "Ball", "Linf", "by_norm", "per_row", "unit"]

T = TypeVar("T")

NORMS: dict[str, type[Ball]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


def by_norm(table: Mapping[str, T], norm: str, owner: str) -> T:
    """Return the entry of a norm in a table by norm, such as `NORMS`.

    Raises:
        CembenchError: when the table of `owner` does not have it, naming the norms that it has.
    """
    if norm not in table:
        raise CembenchError(f"{owner} has no norm '{norm}'; known: {', '.join(table)}")
    return table[norm]
