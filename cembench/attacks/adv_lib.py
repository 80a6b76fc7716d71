"""Any attack on classifiers of the library adv-lib, by the name of its function."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from cembench.attacks import Target
from cembench.attacks.library import LibraryAttack, Offer, offers

if TYPE_CHECKING:
    from torch import Tensor

ORDERS = {"l0": 0, "l1": 1, "l2": 2, "linf": math.inf}
ATTACKS: dict[str, Offer] = {
    **offers("linf l2 l1", "apgd apgd_targeted"),
    **offers("linf", "pgd_linf"),
    **offers("linf l2 l1 l0", "fmn pdpgd", minimises=True),
    **offers("linf l2 l1", "fab", minimises=True),
    **offers("linf l2", "df", minimises=True),
    **offers("linf", "carlini_wagner_linf", minimises=True),
    **offers("l2", "alma carlini_wagner_l2 ddn pdgd sdf tr", minimises=True),
    **offers("l2", "str_attack", minimises=True, note="crashes where it finds nothing"),
    **offers("l0", "fga vfga sigma_zero", minimises=True),
    **offers("", "perc_al", note="three channels only"),
}


class AdvLibAttack(LibraryAttack):
    """Any attack on classifiers of adv-lib, by the name of its function.

    `pip install --no-deps adv-lib`: of what it depends on, visdom does not build any more, and is
    only needed for charts of its own.

    Attributes:
        attack: the function, such as `ddn`, `fmn` or `alma`.
        args: its arguments. `norm` is one of l0, l1, l2, linf: the threat model's for an attack
            with a budget, the first that it has for one that looks for the smallest change.

    Examples:
        >>> AdvLibAttack(attack="ddn").minimises
        'l2'
        >>> AdvLibAttack(attack="fmn", args={"norm": "l1"}).minimises
        'l1'
    """

    name: ClassVar[str] = "adv-lib"
    library: ClassVar[str] = "adv-lib"
    module: ClassVar[str] = "adv_lib.attacks"
    remedy: ClassVar[str] = "--no-deps adv-lib"
    known: ClassVar[dict[str, Offer]] = ATTACKS

    def _library(self) -> Any:
        with _without("visdom"):
            return super()._library()

    def _propose(self, target: Target, x: Tensor, y: Tensor) -> Tensor:
        threat, takes = target.threat, self._signature().parameters
        norm = self.minimises or self.args.get("norm", threat.norm)
        eps = {} if self.minimises else {"eps": threat.eps, "ε": threat.eps}
        known = {"targeted": False, "num_classes": target.classes, **eps, **self.args}
        known |= {"norm": ORDERS.get(norm, norm)}
        args = {key: value for key, value in known.items() if key in takes}
        proposed: Tensor = self._kind()(target.model, x, y, **args)
        return proposed


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let a missing module be imported as an empty one meanwhile."""
    missing = module not in sys.modules and find_spec(module) is None
    if missing:
        sys.modules[module] = ModuleType(module)
    try:
        yield
    finally:
        if missing:
            del sys.modules[module]
