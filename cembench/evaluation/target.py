"""Target of the attacks of a protocol, and which stages of an attack apply to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cembench.attacks import Attack, Propose, Target
from cembench.attacks.verdict import CheckedModel, averaged
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol
from cembench.models.engine import Engine
from cembench.models.gradient import missing_gradient
from cembench.util.errors import CembenchError
from cembench.util.frozen import frozen
from cembench.util.rng import isolated_rng


def target_of(
    model: nn.Module,
    classes: int,
    protocol: Protocol,
    threat: Threat,
    example: Tensor | None = None,
    engine: Engine | None = None,
) -> Target:
    """Return what the attacks of a protocol face.

    Args:
        model: the network as it is, frozen.
        classes: how many logits it returns.
        protocol: says how verdicts are taken.
        threat: the ball that perturbations must stay in.
        example: a few images on which it is tried whether the network has a gradient; without them
            it is taken to have one, and attacked as it is.
        engine: what proposes; the network as it is unless given.

    Raises:
        ModelError: when the network fails on the example.
    """
    trial, plain = CheckedModel(model, classes).eval(), CheckedModel(model, classes).eval()
    no_gradient = "" if example is None else missing_gradient(trial, example)
    same = example is not None and _repeats(averaged(trial, protocol.passes), example)
    attacked = plain
    if engine is not None and example is not None and not no_gradient:
        surrogate = engine.prepare(model, example)
        attacked = plain if surrogate is model else CheckedModel(surrogate, classes).eval()
    return Target(
        attacked,
        plain,
        averaged(plain, protocol.passes),
        threat,
        classes,
        protocol.seed,
        protocol.batch_size,
        no_gradient,
        example,
        same,
    )


def _repeats(model: nn.Module, example: Tensor) -> bool:
    with isolated_rng(0), torch.no_grad():
        return torch.equal(model(example), model(example))


def applicable(attack: Attack, target: Target) -> list[tuple[str, Propose]]:
    """Return the stages that can be run: all, unless the network has no gradient.

    Stages of which the attack does not say whether they need one are tried on a few images, so the
    answer is the same for all chunks.

    Raises:
        CembenchError: for an attack that does not know the norm of the threat model.
    """
    attack.require_norm(target.threat.norm)
    stages = attack.stages(target)
    if not target.no_gradient:
        return stages
    if (known := attack.black_box) is not None:
        return [(name, propose) for name, propose in stages if name in known]
    return [(name, propose) for name, propose in stages if _runs(propose, target)]


def applies(attack: Attack, target: Target) -> bool:
    """Return whether any stage of an attack can be run."""
    return not target.no_gradient or bool(applicable(attack, target))


def not_applicable(attack: Attack, target: Target) -> list[str]:
    """Return the stages that cannot be run, with the title of the attack; it alone for all."""
    if not target.no_gradient:
        return []
    left = [name for name, _ in applicable(attack, target)]
    missing = [name for name, _ in attack.stages(target) if name not in left]
    return [f"{attack.title} {name}" for name in missing] if left else [attack.title]


def _runs(propose: Propose, target: Target) -> bool:
    x = target.example
    if x is None:
        return True
    try:
        with isolated_rng(target.seed), frozen(target.model):
            propose(x.clone(), target.plain(x).argmax(1))
    except (CembenchError, torch.OutOfMemoryError):
        raise
    except Exception:
        return False
    return True
