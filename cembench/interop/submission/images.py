"""Adversarial images of an entry: where they lie, and whether they are those of its table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from cembench.data.split import Split
from cembench.energy.ascent import to_bytes
from cembench.energy.threat import Threat
from cembench.evaluation.artifacts import OUTSIDE, adversarial_file
from cembench.evaluation.sections.threats import AttackRun
from cembench.interop.submission.checks import Checks
from cembench.interop.submission.claim import Claim
from cembench.util.files.tensors import open_tensors

KEYS = {"rows", "images", "bytes", f"{OUTSIDE}rows", f"{OUTSIDE}images"}


def check_images(claim: Claim, run: AttackRun, split: Split, rows: Tensor, checks: Checks) -> None:
    """Check the saved images of an attack without running a network.

    Args:
        claim: what the entry claims.
        run: the attack.
        split: the attacked images, of the keeper.
        rows: their numbers in the whole split.
        checks: where the findings go.

    Raises:
        CembenchError: when they are damaged.
    """
    title, threat = run.title, run.threat or claim.record.threat
    with open_tensors(adversarial_file(claim.path, title)) as kept:
        numbers = _numbers(kept, split.shape, title, checks)
        if numbers is None or not _rows_fit(claim, title, rows, numbers, checks):
            return
        places = {row: place for place, row in enumerate(rows.tolist())}
        chosen = torch.tensor([places[row] for row in numbers], dtype=torch.long)
        found = list(_wrong(kept, split, chosen, threat, claim.protocol.batch_size))
    outside, otherwise = (sum(column) for column in zip((0, 0), *found, strict=True))
    checks.equal(f"images of {title} outside the ball or [0, 1]", 0, outside)
    checks.equal(f"8-bit images of {title} that are not the rounded ones", 0, otherwise)


def _numbers(
    kept: Any, shape: tuple[int, int, int], title: str, checks: Checks
) -> list[int] | None:
    """Return the row numbers in a file; None where its tensors are not those of such a file."""
    try:
        rows = kept.get_tensor("rows")
        found = [kept.get_slice(key) for key in ("images", "bytes")]
        others = ", ".join(sorted({*kept.keys()} - KEYS))
    except SafetensorError as error:
        checks.fail(f"file of {title}", "rows, images and bytes", error)
        return None
    kinds = [(one.get_dtype(), one.get_shape()) for one in found]
    wanted = [(kind, [len(rows), *shape]) for kind in ("F32", "U8")]
    fits = checks.equal(f"images of {title}", wanted, kinds)
    fits &= checks.equal(f"other tensors of {title}", "none", others or "none")
    whole = rows.dim() == 1 and rows.dtype == torch.long
    fits &= checks.require(f"rows of {title}", whole, "numbers", str(rows.dtype))
    return rows.tolist() if fits else None


def _rows_fit(claim: Claim, title: str, rows: Tensor, kept: list[int], checks: Checks) -> bool:
    """Compare the rows of saved images with the successes in the table."""
    strange = set(kept) - set(rows.tolist())
    checks.equal(f"images of {title} that were not attacked", 0, len(strange))
    checks.equal(f"images of {title} that are there twice", 0, len(kept) - len(set(kept)))
    if f"{title}_broken" in claim.table:
        broken = set(rows[torch.tensor(claim.table[f"{title}_broken"].to_numpy())].tolist())
        checks.equal(f"successes of {title} without an image", 0, len(broken - set(kept)))
        checks.equal(f"images of {title} without a success", 0, len(set(kept) - broken))
    return not strange


def _wrong(
    kept: Any, split: Split, chosen: Tensor, threat: Threat, size: int
) -> Iterator[tuple[int, int]]:
    """Yield how many images lie outside the ball or [0, 1], and how many were rounded otherwise."""
    ball = threat.ball
    for start in range(0, len(chosen), size):
        here = slice(start, start + size)
        x = split.pixels(chosen[here])
        images, rounded = (kept.get_slice(key)[here] for key in ("images", "bytes"))
        near = ball.size((images - x).double()) <= ball.eps + ball.tolerance
        inside = ((images >= 0) & (images <= 1)).flatten(1).all(1) & near
        again = (to_bytes(images, x, ball) * 255).round()
        same = ((again - rounded).abs() <= 1).flatten(1).all(1)  # CPUs round otherwise
        yield int((~inside).sum()), int((inside & ~same).sum())
