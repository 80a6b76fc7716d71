"""Any attack of the torchattacks library, by class name."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, ClassVar

from cembench.attacks import Target
from cembench.attacks.library import LibraryAttack, Offer, offers
from cembench.util.devices import device_of
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from torch import Tensor

# All but its AutoAttack, which is a shortened variant, and what wraps other attacks.
ATTACKS: dict[str, Offer] = {
    **offers("linf", "FGSM BIM RFGSM PGD EOTPGD FFGSM TPGD MIFGSM UPGD DIFGSM Jitter"),
    **offers("linf", "NIFGSM PGDRS SINIFGSM VMIFGSM VNIFGSM"),
    **offers("linf", "TIFGSM PIFGSM PIFGSMPP", note="three channels only"),
    **offers("linf", "SPSA", black_box=True),
    **offers("linf l2", "APGD APGDT"),
    **offers("linf l2", "Square", black_box=True),
    **offers("linf l2", "FAB", note="its norm L1 crashes"),
    **offers("l2", "PGDL2 PGDRSL2"),
    **offers("l2", "CW DeepFool", minimises=True),
    **offers("l1", "EADL1 EADEN", minimises=True),
    **offers("l0", "SparseFool", minimises=True),
    **offers("l0", "JSMA", note="ten classes only"),
    **offers("l0", "OnePixel Pixle", black_box=True),
    **offers("", "GN", black_box=True),
}


class TorchattacksAttack(LibraryAttack):
    """Any attack of torchattacks.

    Whatever its own norm and budget, its images count only inside the threat model's ball. Its
    AutoAttack is a shortened variant and refused: use `autoattack`.

    Attributes:
        attack: the class, such as `MIFGSM`.
        args: its arguments; where it takes `eps`, `norm` or `n_classes` and none is given, they
            are those of threat model and network.

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
    library: ClassVar[str] = "torchattacks"
    module: ClassVar[str] = "torchattacks"
    remedy: ClassVar[str] = "'cembench[attacks]'"
    known: ClassVar[dict[str, Offer]] = ATTACKS

    @property
    def own_title(self) -> str:
        """The label, or the class name in lower case."""
        return self.label or self.attack.lower()

    def _propose(self, target: Target, x: Tensor, y: Tensor) -> Tensor:
        kind, threat = self._kind(), target.threat
        takes = self._signature().parameters
        known = {"eps": threat.eps, "norm": threat.ball.library_name, "n_classes": target.classes}
        args = {**{key: value for key, value in known.items() if key in takes}, **self.args}
        try:
            with redirect_stdout(StringIO()):  # it prints where it finds no parameters
                attack = kind(target.model, **args)
        except (TypeError, ValueError, AssertionError) as error:
            raise CembenchError(f"torchattacks.{self.attack}: {error}") from error
        attack.set_device(device_of(target.model))
        proposed: Tensor = attack(x, y)
        return proposed
