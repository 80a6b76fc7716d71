"""Attacks that spend their passes on the images nearest to a success."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cembench.attacks.square import square
from cembench.attacks.state import AttackState
from cembench.energy import potentials
from cembench.util.rng import generator_of

GROUP = 12  # images that are attacked together, the nearest to a success first
ENOUGH = 1000  # queries that Square needs, with windows that shrink as in the paper
FEW = 2  # fewer successes in a group mean that the images after it are too far from one


def nearest_first(reached: Tensor, attack: Callable[[Tensor], Tensor]) -> Tensor:
    """Attack groups of images, the nearest to a success first, until one has hardly any.

    Args:
        reached: what the attack has made large so far, such as the loss, M values.
        attack: indices of images to whether it succeeds.

    Returns:
        On which images it succeeds, M booleans.
    """
    found = torch.zeros_like(reached, dtype=torch.bool)
    for group in reached.argsort(descending=True).split(GROUP):
        found[group] = attack(group)
        if int(found[group].sum()) < FEW:
            break
    return found


class FirstSuccess(AttackState):
    """The state of an attack that ends with any success, also one that rounding undoes."""

    enough = 1


@torch.no_grad()
def square_nearest_first(
    model: nn.Module, state: AttackState, seed: int, queries: int, max_batch: int
) -> None:
    """Attack all images by Square with a twentieth of the queries, then the nearest with all.

    With fewer queries than `ENOUGH` its windows shrink faster, so that it ends at the same size.

    Args:
        model: the network to attack.
        state: of the images; successes are recorded there.
        seed: of the search.
        queries: proposals per image.
        max_batch: proposals per batch.
    """

    def attack(part: AttackState, count: int) -> Tensor:
        generator = generator_of(seed, state.x.device)
        return square(model, part, generator, queries=count, max_batch=max_batch, pace=pace)

    pace = max(1.0, ENOUGH / queries)
    out = model(attack(state, max(1, queries // 20)))
    rivals = out.scatter(1, state.y[:, None], -torch.inf).amax(1)
    left = state.active

    def attack_group(group: Tensor) -> Tensor:
        part = copy.copy(state)
        part.shard = left[group]
        attack(part, queries)
        return state.success[part.shard] > 0

    nearest_first((rivals - potentials.joint(out, state.y))[left], attack_group)
