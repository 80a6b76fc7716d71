"""Any attack of the foolbox library, by class name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cembench.attacks import Target
from cembench.attacks.library import LibraryAttack, Offer, offers
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
BUDGETED = (
    *("FastGradientAttack", "BasicIterativeAttack", "AdamBasicIterativeAttack"),
    *("ProjectedGradientDescentAttack", "AdamProjectedGradientDescentAttack", "PGD", "AdamPGD"),
    "MomentumIterativeFastGradientMethod",
)
NOISES = (
    *("AdditiveGaussianNoiseAttack", "AdditiveUniformNoiseAttack"),
    *("RepeatedAdditiveGaussianNoiseAttack", "RepeatedAdditiveUniformNoiseAttack"),
)
STARTED = {  # from a misclassified image
    *("BoundaryAttack", "HopSkipJumpAttack", "PointwiseAttack", "BinarizationRefinementAttack"),
    *("L0BrendelBethgeAttack", "L1BrendelBethgeAttack", "L2BrendelBethgeAttack"),
    "LinfinityBrendelBethgeAttack",
}
NUMBA = "needs the package numba"
ATTACKS: dict[str, Offer] = {
    **{f"{PREFIXES[norm]}{name}": Offer((norm,)) for norm in PREFIXES for name in BUDGETED},
    **offers("linf", "FGSM PGD MIFGSM AdamPGD"),
    **offers("l2", "FGM"),
    **offers("l2", "VirtualAdversarialAttack", note="give it steps, and xi of 0.1: else NaN"),
    **offers("l1", "SparseL1DescentAttack"),
    **{f"L2{name}": Offer(("l2",), black_box=True) for name in NOISES},
    **{f"L2ClippingAware{name}": Offer(("l2",), black_box=True) for name in NOISES},
    **offers("linf", "LinfAdditiveUniformNoiseAttack", black_box=True),
    **offers("linf", "LinfRepeatedAdditiveUniformNoiseAttack", black_box=True),
    **offers("linf", "GenAttack", black_box=True),
    **offers("l2", "L2ContrastReductionAttack", black_box=True),
    **offers("linf", "LInfFMNAttack LinfDeepFoolAttack", minimises=True),
    **offers("l2", "L2FMNAttack L2DeepFoolAttack DDNAttack L2CarliniWagnerAttack", minimises=True),
    **offers("l2", "NewtonFoolAttack", minimises=True),
    **offers("l1", "L1FMNAttack EADAttack", minimises=True),
    **offers("l0", "L0FMNAttack", minimises=True),
    **offers("linf", "LinfinityBrendelBethgeAttack", minimises=True, note=NUMBA),
    **offers("l2", "L2BrendelBethgeAttack", minimises=True, note=NUMBA),
    **offers("l1", "L1BrendelBethgeAttack", minimises=True, note=NUMBA),
    **offers("l0", "L0BrendelBethgeAttack", minimises=True, note=NUMBA),
    **offers("l2 linf", "HopSkipJumpAttack", minimises=True, black_box=True),
    **offers("l2", "BoundaryAttack PointwiseAttack DatasetAttack", minimises=True, black_box=True),
    **offers("l2", "InversionAttack GaussianBlurAttack", minimises=True, black_box=True),
    **offers("l2", "BinarySearchContrastReductionAttack", minimises=True, black_box=True),
    **offers("l2", "LinearSearchContrastReductionAttack", minimises=True, black_box=True),
    **offers("l2", "LinearSearchBlendedUniformNoiseAttack", minimises=True, black_box=True),
    **offers("l2", "SaltAndPepperNoiseAttack", minimises=True, black_box=True),
    **offers(
        "l2",
        "BinarizationRefinementAttack",
        minimises=True,
        black_box=True,
        note="for networks that make their images binary",
    ),
    **offers("", "SpatialAttack", black_box=True),
}


class FoolboxAttack(LibraryAttack):
    """Any attack of foolbox.

    An attack with a budget gets that of the threat model; one that looks for the smallest change
    gets none. Those that start from a misclassified image get one of another class from the batch,
    where there is any; `GenAttack`, which needs a target, the likeliest other class.

    Attributes:
        attack: the class, such as `L2CarliniWagnerAttack`.
        args: its arguments.

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> x = torch.rand(6, 1, 8, 8)
        >>> y = net(x).argmax(1)
        >>> target = Target.of(net, Threat(norm="linf", eps=0.3), classes=4)
        >>> [(name, propose)] = FoolboxAttack(attack="LinfFastGradientAttack").stages(target)
        >>> (net(propose(x, y)).argmax(1) == y).tolist()
        [False, False, False, False, False, False]
    """

    name: ClassVar[str] = "foolbox"
    library: ClassVar[str] = "foolbox"
    module: ClassVar[str] = "foolbox"
    remedy: ClassVar[str] = "'cembench[attacks]'"
    norm_key: ClassVar[str] = "constraint"
    known: ClassVar[dict[str, Offer]] = ATTACKS

    def _kind(self) -> Any:
        return getattr(self._library().attacks, self.attack)

    def _propose(self, target: Target, x: Tensor, y: Tensor) -> Tensor:
        library, takes = self._library(), self._signature().parameters
        args = {"distance": library.distances.l2} if "distance" in takes else {}
        try:
            attack = self._kind()(**args, **self.args)
        except (TypeError, ValueError) as error:
            raise CembenchError(f"foolbox.{self.attack}: {error}") from error
        model = library.PyTorchModel(target.model, bounds=(0, 1), device=x.device)
        more: dict[str, Any] = {"epsilons": None if self.minimises else target.threat.eps}
        criterion: Any = library.Misclassification(y)
        logits = target.model(x).detach()
        if self.attack == "GenAttack":
            rivals = logits.scatter(1, y[:, None], -float("inf")).argmax(1)
            criterion = library.criteria.TargetedMisclassification(rivals)
        if self.attack in STARTED and (starts := _starts(x, y, logits)) is not None:
            more["starting_points"] = starts
        if hasattr(attack, "feed"):
            attack.feed(model, x)
        proposed: Tensor = attack(model, x, criterion, **more)[1]
        return proposed


def _starts(x: Tensor, y: Tensor, logits: Tensor) -> Tensor | None:
    """Return for each image the first one that is taken for another class; None if one has none."""
    other = logits.argmax(1)[None] != y[:, None]
    return x[other.byte().argmax(1)] if bool(other.any(1).all()) else None
