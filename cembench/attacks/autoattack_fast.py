"""AutoAttack's four attacks in our own code: the same steps, on fewer images at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from cembench.attacks import Attack, Propose, Sampling, Target, Verified
from cembench.attacks.autoattack import BLACK_BOX, NORMS, standard_attacks
from cembench.energy.potentials import dlr
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Count, optional_field

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.attacks.apgd import apgd, runs_of, targeted_apgd
    from cembench.attacks.fab import targeted_fab
    from cembench.attacks.square import square
    from cembench.attacks.state import AttackState
    from cembench.attacks.verdict import Verdict
    from cembench.util.rng import generator_of

MIN_SHARD = 8  # images that are worth a thread of their own
LIKELIEST = 3  # targets of APGD-T that all images are attacked toward, whatever the sample
SAMPLED = frozenset({"apgd-t-others", "fab-t", "square"})
AttackFunction = Callable[["nn.Module", "AttackState"], "Tensor | None"]


class FastAutoAttack(Attack):
    """The attacks and settings of AutoAttack's standard version (arXiv 2003.01690).

    Unlike the official code it drops images as soon as an attack succeeds, and attacks several
    targets in one batch where images are few. On a CPU each thread attacks a shard of the images,
    which is faster than sharing each convolution of a small network. Random starts are drawn for
    all images, so they depend on neither; they are not the official ones, so verdicts agree with
    `autoattack` but for images on the edge, and have a column of their own. Norms: ℓ∞, ℓ2 and ℓ1.

    Attributes:
        sample: images per chunk. If given, all images are attacked by APGD-CE and, toward the three
            likeliest classes, by APGD-T. APGD-T toward the other classes, FAB-T and Square attack a
            random sample of this size of those that survive, and the rest only if they succeed on
            one of the sample. The column is `autoattack-sampled`; its interval allows for images
            left untried.

    Examples:
        >>> import torch
        >>> from cembench.attacks import Target
        >>> from cembench.energy.threat import Threat
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        >>> x = torch.rand(6, 1, 8, 8)
        >>> y = net(x).argmax(1)
        >>> target = Target.of(net, Threat(norm="l2", eps=2.0), classes=4)
        >>> stages = dict(FastAutoAttack().stages(target))
        >>> list(stages)
        ['apgd-ce', 'apgd-t', 'fab-t', 'square']
        >>> adversarial = stages["apgd-t"](x, y)
        >>> (net(adversarial).argmax(1) == y).tolist()
        [False, False, False, False, False, False]
    """

    name: ClassVar[str] = "autoattack-fast"
    label: None = None
    sample: Count | None = optional_field(None)

    @property
    def own_title(self) -> str:
        """`autoattack-fast` is the attack on all images alone."""
        return self.name if self.sample is None else "autoattack-sampled"

    @property
    def black_box(self) -> frozenset[str]:
        """Square."""
        return BLACK_BOX

    @property
    def norms(self) -> frozenset[str]:
        """Those for which it has steps."""
        return NORMS

    @property
    def sampling(self) -> Sampling | None:
        """All but APGD toward the likeliest classes, if `sample` is given."""
        return None if self.sample is None else Sampling(self.sample, SAMPLED)

    def stages(self, target: Target) -> list[tuple[str, Propose]]:
        """Return the attacks in the official order."""
        names = standard_attacks(target.classes)
        likeliest = None if self.sample is None else LIKELIEST
        if likeliest is not None and target.classes - 1 > likeliest:
            names.insert(names.index("apgd-t") + 1, "apgd-t-others")
        return [(name, _Stage(target, name, likeliest)) for name in names]


@dataclass(frozen=True)
class _Stage(Verified):
    target: Target
    name: str
    likeliest: int | None

    def verdict(self, x: Tensor, y: Tensor) -> Verdict:
        target = self.target
        state = AttackState(target.verifier, x, y, target.threat.ball)
        threads = torch.get_num_threads()
        count = 1 if x.is_cuda else max(1, min(threads, len(x) // MIN_SHARD))
        max_batch = max(len(x), target.max_batch) // count
        shards = state.shards(count)

        def attack(shard: AttackState) -> None:
            torch.set_num_threads(max(1, threads // count))
            _function(target, self.name, self.likeliest, max_batch, x.device)(target.model, shard)

        if count == 1:
            attack(*shards)
            return state.verdict
        with ThreadPoolExecutor(count) as pool:
            try:
                list(pool.map(attack, shards))
            except BaseException:
                state.stop.set()
                raise
            finally:
                torch.set_num_threads(threads)
        return state.verdict


def _function(
    target: Target, name: str, likeliest: int | None, max_batch: int, device: torch.device
) -> AttackFunction:
    generator = generator_of(target.seed, device)
    targets = min(9, target.classes - 1)
    chased = min(runs_of(target.threat.norm).targets, targets)
    first = min(likeliest or chased, chased)
    apgd_t = partial(targeted_apgd, max_batch=max_batch, generator=generator)
    functions: dict[str, AttackFunction] = {
        "apgd-ce": partial(apgd, generator=generator),
        "apgd-dlr": partial(apgd, potential=dlr, generator=generator),
        "apgd-t": partial(apgd_t, targets=first),
        "apgd-t-others": partial(apgd_t, targets=chased, first=first),
        "fab-t": partial(targeted_fab, targets=targets, max_batch=max_batch),
        "square": partial(square, generator=generator, max_batch=max_batch),
    }
    return functions[name]
