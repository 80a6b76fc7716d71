"""Attacks read from the images that an evaluation saved, and verified again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cembench.attacks import Attack
from cembench.attacks.verdict import verify
from cembench.evaluation.artifacts import SavedImages, saved_images
from cembench.evaluation.cache import ChunkCache
from cembench.evaluation.chunk import Chunk
from cembench.evaluation.measures.attack_progress import AttackProgress
from cembench.evaluation.measures.robustness import sample_seed


@dataclass(frozen=True)
class SavedAttacks:
    """Attacks read from the images that an evaluation saved, and verified again.

    An image that nothing was saved of survives. Which stage succeeded is taken from the record,
    and which images were left untried follows from it.

    Attributes:
        record: the file of the record.
        rows: the numbers of the attacked images in the whole split.
        table: the table of verdicts of the record.
        saved: the files of the attacks, by title, once they are open.
    """

    record: Path
    rows: Tensor
    table: pd.DataFrame
    saved: dict[str, SavedImages] = field(default_factory=dict)

    def attacked(self, attack: Attack, chunk: Chunk, before: AttackProgress) -> AttackProgress:
        """Verify the saved images of a chunk."""
        x, y, target = chunk.split.pixels(), chunk.split.labels, chunk.target
        title = chunk.title(attack.title)
        if title not in self.saved:
            shape = chunk.split.shape
            self.saved[title] = SavedImages(self.record, title, self.rows, shape)
        places, images = self.saved[title].between(chunk.start, chunk.start + len(x))
        rows = (places - chunk.start).to(x.device)
        progress = AttackProgress.fresh(x)
        if len(rows):
            proposed = images.to(x.device)
            verdict = verify(target.verifier, x[rows], proposed, y[rows], target.threat.ball)
            progress.record(rows, verdict)
        stages = self.table.get(f"{title}_by", pd.Series([""] * len(self.rows)))
        by = list(stages)[chunk.start : chunk.start + len(x)]
        progress.credit(by)
        if attack.sampling is not None:
            late = torch.tensor([name in attack.sampling.stages for name in by], device=x.device)
            left = chunk.correct & (late | ~progress.broken)
            progress.draw(left, attack.sampling.images, sample_seed(chunk))
            progress.release()
        return progress

    def images(
        self, title: str, number: int, cache: ChunkCache | None, find: Callable[[], Tensor]
    ) -> Tensor:
        """Read the images of a chunk."""
        return saved_images(self.record, title, number)

    def minimised(self, attack: Attack, title: str) -> str | None:
        """Return the norm of the smallest perturbations in the table of the record, if any."""
        return attack.minimises if f"{title}_size" in self.table else None
