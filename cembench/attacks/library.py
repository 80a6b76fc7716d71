"""Attacks of other libraries, by name: each is one stage, and judged like any other attack."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from pydantic import field_validator, model_validator

from cembench.attacks import Attack, Propose, Target
from cembench.util.errors import CembenchError
from cembench.util.extras import optional_package, require_package
from cembench.util.settings import fraction, nearest

if TYPE_CHECKING:
    from torch import Tensor


class Offer(NamedTuple):
    """What is known of an attack of a library without importing it.

    Attributes:
        norms: in which it attacks; empty if its images keep to no ball.
        minimises: whether it looks for the smallest change, whatever ε: in the first of the norms
            unless its arguments name another.
        black_box: whether it needs no gradient.
        note: what it needs besides, or where it fails.
    """

    norms: tuple[str, ...]
    minimises: bool = False
    black_box: bool = False
    note: str = ""


def offers(norms: str, names: str, **more: Any) -> dict[str, Offer]:
    """Return the entries of attacks that are alike; norms and names are parted by blanks."""
    return {name: Offer(tuple(norms.split()), **more) for name in names.split()}


class LibraryAttack(Attack):
    """An attack of a library, whose table says what it offers.

    Attributes:
        attack: its name in the library.
        args: its arguments.
    """

    attack: str
    args: dict[str, Any] = {}
    module: ClassVar[str]  # of the library
    remedy: ClassVar[str]  # what to install where it is missing
    norm_key: ClassVar[str] = "norm"  # the argument that chooses among several norms
    known: ClassVar[Mapping[str, Offer]]

    @field_validator("args")
    @classmethod
    def _fractions(cls, args: dict[str, Any]) -> dict[str, Any]:
        return {key: fraction(value) for key, value in args.items()}

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.attack not in self.known:
            hint = nearest(self.attack, self.known)
            raise ValueError(f"no usable {self.name}.{self.attack}; {hint}")
        if self.minimises not in (None, *self.offer.norms):
            norms = ", ".join(self.offer.norms)
            raise ValueError(f"{self.name}.{self.attack} minimises {norms}, not {self.minimises}")
        if not self.args:
            return self  # without torch, which protocols are read without
        try:
            require_package(self.module, self.remedy)
        except CembenchError:
            return self  # records can be read, and verified
        try:
            self._signature().bind_partial(**self.args)
        except TypeError as error:
            raise ValueError(f"{self.name}.{self.attack}: {error}") from error
        return self

    @property
    def own_title(self) -> str:
        """The label, or the name of the attack in lower case after that of the library."""
        return self.label or f"{self.name}-{self.attack.lower()}"

    @property
    def offer(self) -> Offer:
        """What is known of it."""
        return self.known[self.attack]

    @property
    def black_box(self) -> frozenset[str]:
        """The attack itself, if it follows no gradients."""
        return frozenset({self.title} if self.offer.black_box else ())

    @property
    def norms(self) -> frozenset[str] | None:
        """Its own, unless it minimises, keeps to no ball, or is given ε or a norm."""
        own = {"eps", "ε", self.norm_key} & self.args.keys()
        free = self.offer.minimises or not self.offer.norms or own
        return None if free else frozenset(self.offer.norms)

    @property
    def minimises(self) -> str | None:
        """The norm in which it looks for the smallest change, if it does."""
        norms = self.offer.norms
        return str(self.args.get(self.norm_key, norms[0])) if self.offer.minimises else None

    def require_installed(self) -> None:
        """Refuse an attack whose library is missing, naming what to install."""
        require_package(self.module, self.remedy)

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the attack as one stage, which imports the library."""
        return [(self.title, partial(self._propose, target))]

    def _library(self) -> Any:
        return optional_package(self.module, self.remedy)

    def _kind(self) -> Any:
        return getattr(self._library(), self.attack)

    def _signature(self) -> inspect.Signature:
        return inspect.signature(self._kind())

    @abstractmethod
    def _propose(self, target: Target, x: Tensor, y: Tensor) -> Tensor:
        """Return the images that the attack proposes for x, N×C×H×W, with labels y."""
