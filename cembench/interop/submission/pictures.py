"""Pictures of an entry on the board: made by the keeper, from samples that were recounted."""

from __future__ import annotations

from pathlib import Path

from cembench.evaluation.artifacts import saved_samples
from cembench.interop.submission.claim import Claim
from cembench.samplers.draw import chunks
from cembench.util.display.image_grid import grid
from cembench.util.files import write_bytes
from cembench.util.files.layout import RunLayout


def write_pictures(claim: Claim, folder: Path) -> None:
    """Write a grid of initial images and samples for each sampler, where the report looks for it.

    An entry brings no pictures, which could show anything.

    Args:
        claim: of a network that was run.
        folder: the run folder on the board.
    """
    found, samples, metadata = claim.record.generation, claim.protocol.samples, claim.metadata
    if found is None or samples is None or metadata is None:
        return
    record = RunLayout(folder).record(claim.protocol.name)
    for sampler in samples.samplers:
        figures = found.samplers.get(sampler.title)
        if figures is None or figures.error is not None:
            continue
        y = next(chunks(sampler, found.count, len(metadata.classes), samples.batch_size))
        saved = saved_samples(record, sampler.title, 0, y)
        panels = {"initial images": saved.starts, "samples": saved.images}
        picture = grid(panels, y, metadata.classes)
        write_bytes(RunLayout.picture(record, sampler.title), picture)
