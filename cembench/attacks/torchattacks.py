"""Any attack of the torchattacks library, by class name."""

from __future__ import annotations

import ast
import inspect
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import field_validator, model_validator

from cembench.attacks import Attack, Propose, Target
from cembench.util.devices import device_of
from cembench.util.errors import CembenchError
from cembench.util.settings import fraction, nearest


class TorchattacksAttack(Attack):
    """Any attack of torchattacks.

    Whatever its own norm and budget, its images count only inside the threat model's ball. Its
    AutoAttack is a shortened variant and refused: use `autoattack`.

    Attributes:
        attack: the class, such as `MIFGSM`.
        args: its arguments; `eps` is the threat model's where it takes one and none is given.

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> x = torch.rand(6, 1, 8, 8)
        >>> y = net(x).argmax(1)
        >>> target = Target.of(net, Threat(norm="linf", eps=0.3), classes=4)
        >>> attack = TorchattacksAttack(attack="MIFGSM", args={"steps": 5, "alpha": 0.1})
        >>> [(name, propose)] = attack.stages(target)
        >>> (net(propose(x, y)).argmax(1) == y).tolist()
        [False, False, False, False, False, False]
    """

    name: ClassVar[str] = "torchattacks"
    attack: str
    args: dict[str, Any] = {}

    @field_validator("args")
    @classmethod
    def _fractions(cls, args: dict[str, Any]) -> dict[str, Any]:
        return {key: fraction(value) for key, value in args.items()}

    @property
    def own_title(self) -> str:
        """The label, or the class name in lower case."""
        return self.label or self.attack.lower()

    @property
    def black_box(self) -> frozenset[str]:
        """The attack itself, if it follows no gradients."""
        return frozenset({self.title} if self.attack in BLACK_BOX else ())

    @model_validator(mode="after")
    def _usable(self) -> Self:
        known = library_attacks()
        if self.attack not in known:
            raise ValueError(f"no usable torchattacks.{self.attack}; {nearest(self.attack, known)}")
        if not self.args:
            return self  # without torch, which protocols are read without
        import torchattacks

        try:
            inspect.signature(getattr(torchattacks, self.attack)).bind(None, **self.args)
        except TypeError as error:
            raise ValueError(f"torchattacks.{self.attack}: {error}") from error
        return self

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the attack as one stage."""
        import torchattacks

        kind = getattr(torchattacks, self.attack)
        takes = inspect.signature(kind).parameters
        args = {"eps": target.threat.eps, **self.args} if "eps" in takes else self.args
        try:
            with redirect_stdout(StringIO()):  # it prints where it finds no parameters
                attack = kind(target.model, **args)
        except (TypeError, ValueError, AssertionError) as error:
            raise CembenchError(f"torchattacks.{self.attack}: {error}") from error
        attack.set_device(device_of(target.model))
        return [(self.title, attack)]


@cache
def library_attacks() -> list[str]:
    """Return the classes that torchattacks has, from its source, which imports nothing."""
    spec = find_spec("torchattacks")
    assert spec is not None and spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [name for name in ast.literal_eval(node.value) if name not in _NOT_ATTACKS]
    raise CembenchError(f"{spec.origin}: names no attacks; install torchattacks 3.5.1")


BLACK_BOX = {"GN", "SPSA", "OnePixel", "Pixle", "Square"}  # classes that follow no gradients
_NOT_ATTACKS = {"AutoAttack", "VANILA", "MultiAttack", "LGV", "__version__", "__wrapper__"}
