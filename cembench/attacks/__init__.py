"""Attacks by name. An attack only proposes images; `attacks.verdict` decides which count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from cembench.energy.threat import Threat
from cembench.util.errors import CembenchError
from cembench.util.registry import Registry
from cembench.util.settings import Choice, Label, optional_field

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cembench.attacks.verdict import CheckedModel, Verdict

Propose = Callable[["Tensor", "Tensor"], "Tensor"]


class Verified(ABC):
    """A stage of an attack that has its proposals verified by the target's verifier on the way.

    Where that returns the same logits each time, its verdicts stand.
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the proposed images for images x, N×C×H×W, with labels y."""
        return self.verdict(x, y).images

    @abstractmethod
    def verdict(self, x: Tensor, y: Tensor) -> Verdict:
        """Return what `attacks.verdict.verify` said of the proposed images."""


@dataclass(frozen=True)
class Target:
    """A frozen network in evaluation mode, as attacks see it, and the threat model.

    The global generators are seeded with `seed` before each stage and restored after it.

    Attributes:
        model: the network to attack: the one evaluated, or a faster copy.
        plain: the network evaluated.
        verifier: the network that decides whether an attack succeeded: the one evaluated, or its
            mean over several passes.
        threat: the threat model.
        classes: the number of logits.
        seed: of all randomness.
        max_batch: how many images may go through the network in one batch.
        no_gradient: why the network has no gradient with respect to its images; empty where it has
            one.
        example: a few images, on which an attack is tried of which nobody knows whether it needs
            a gradient.
        repeatable: whether the verifier is known to return the same logits each time, so that what
            it said during an attack need not be asked again.
    """

    model: CheckedModel
    plain: CheckedModel
    verifier: nn.Module
    threat: Threat
    classes: int
    seed: int
    max_batch: int = 256
    no_gradient: str = ""
    example: Tensor | None = None
    repeatable: bool = False

    @classmethod
    def of(cls, net: nn.Module, threat: Threat, classes: int, seed: int = 0) -> Target:
        """Return a network as the target of attacks, and as its own verifier."""
        from cembench.attacks.verdict import CheckedModel

        model = CheckedModel(net, classes).eval()
        return cls(model, model, model, threat, classes, seed)

    def require_finite(self, where: str) -> None:
        """Refuse a network that returned NaN or infinity since the last call.

        Raises:
            ModelError: saying where.
        """
        for model in (self.model, self.plain):
            model.require_finite(where)


class Sampling(NamedTuple):
    """Stages of an attack that attack a random sample of the survivors first.

    Where one of them succeeds on an image of the sample, they attack the other survivors as well.

    Attributes:
        images: size of the sample of each chunk.
        stages: names of the stages; all others attack every survivor.
    """

    images: int
    stages: frozenset[str]


class Attack(Choice):
    """An attack of a protocol.

    Attributes:
        library: the optional package that it comes from, if any.
        label: its name in tables; the name of the attack unless given.
        on: `all` images, so that its robust accuracy is its own; or the `survivors` of the attacks
            before it, which is cheaper. The accuracy is then that under all of them together, and
            its name ends in `-rest`.
    """

    library: ClassVar[str] = ""
    label: Label | None = None
    on: Literal["all", "survivors"] = optional_field("all")

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.own_title + ("-rest" if self.on == "survivors" else "")

    @property
    def own_title(self) -> str:
        """Its name in tables without the ending: the label, or else the name of the attack."""
        return self.label or self.name

    @property
    def black_box(self) -> frozenset[str] | None:
        """Names of the stages that need no gradient; None where nobody knows: those are tried."""
        return None

    @property
    def norms(self) -> frozenset[str] | None:
        """Norms of the threat models that it knows; None for all."""
        return None

    def require_norm(self, norm: str) -> None:
        """Refuse a norm that it does not know.

        Raises:
            CembenchError: naming the attacks that know it.
        """
        if self.norms is not None and norm not in self.norms:
            raise CembenchError(
                f"{self.title} knows {', '.join(sorted(self.norms))}, not the norm {norm} of the "
                f"threat model; attacks that know it: {', '.join(knowing(norm))}"
            )

    @property
    def minimises(self) -> str | None:
        """The norm in which it looks for the smallest change that fools, whatever the radius.

        None for an attack that stays in the ball of the threat model.
        """
        return None

    @property
    def inner(self) -> Sequence[Attack]:
        """The attacks that it runs, if it runs others."""
        return ()

    @property
    def libraries(self) -> frozenset[str]:
        """The optional packages whose versions decide its figures."""
        own = frozenset({self.library} - {""})
        return own.union(*(attack.libraries for attack in self.inner))

    def require_installed(self) -> None:
        """Refuse an attack that needs a package which is missing.

        Raises:
            CembenchError: naming what to install.
        """
        for attack in self.inner:
            attack.require_installed()

    @property
    def sampling(self) -> Sampling | None:
        """Stages that attack a sample of the survivors first; none of them unless given."""
        return None

    def under(self, engine: str) -> Attack:
        """Return the attack to run under an engine: itself, unless it is official code."""
        return self

    @abstractmethod
    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the attack as named functions from images and labels to proposed images.

        Each stage gets the images that survived the stages before it.
        """


attacks: Registry[Attack] = Registry(
    "attack",
    Attack,
    {
        "pgd": "cembench.attacks.pgd:PGDAttack",
        "torchattacks": "cembench.attacks.torchattacks:TorchattacksAttack",
        "foolbox": "cembench.attacks.foolbox:FoolboxAttack",
        "adv-lib": "cembench.attacks.adv_lib:AdvLibAttack",
        "autoattack": "cembench.attacks.autoattack:AutoAttack",
        "autoattack-fast": "cembench.attacks.autoattack_fast:FastAutoAttack",
        "cascade": "cembench.attacks.cascade:Cascade",
        "fmn": "cembench.attacks.fmn:FMN",
        "sparse-rs": "cembench.attacks.sparse_rs:SparseRS",
        "targeted": "cembench.attacks.targeted:TargetedPGD",
        "transfer": "cembench.attacks.transfer:Transfer",
    },
)


def knowing(norm: str) -> list[str]:
    """Return the names of the registered attacks that know a norm whatever their settings."""
    found = []
    for name in attacks.known():
        with suppress(AttributeError):  # of one whose norms depend on a required setting
            norms = attacks.find(name).model_construct().norms
            if norms is None or norm in norms:
                found.append(name)
    return found
