"""Chunks: images that are attacked together, and where their attacks come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from typing import Protocol as Interface

import torch
from torch import Tensor

from cembench.attacks import Attack, Target
from cembench.data.split import Split
from cembench.evaluation.cache import ChunkCache
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.sections.threats import AttackedThreat, titled
from cembench.util.progress import Bar

if TYPE_CHECKING:
    from cembench.evaluation.measures.attack_progress import AttackProgress

Columns = dict[str, Tensor | list[str]]


class AttackSource(Interface):
    """Attacks on a chunk of images: run, or read from what was saved."""

    def attacked(self, attack: Attack, chunk: Chunk, before: AttackProgress) -> AttackProgress:
        """Return the progress of an attack on images, given that of the attacks before it."""

    def images(
        self, title: str, number: int, cache: ChunkCache | None, find: Callable[[], Tensor]
    ) -> Tensor:
        """Return the images of a chunk under a title: found and kept, or as they were saved."""

    def minimised(self, attack: Attack, title: str) -> str | None:
        """Return the norm of the smallest perturbations that are recorded of an attack, if any."""


@dataclass
class Chunk:
    """Images that are attacked together.

    Attributes:
        split: the images, N of them, with their labels.
        rows: their numbers in the whole split, N.
        start: the position of the first one among the attacked images.
        target: what attacks face.
        protocol: what is measured.
        attacks: the attacks.
        cache: where finished stages are kept, if anywhere.
        bar: told of progress.
        columns: of the table of verdicts, one value per image.
        seconds: wall time of each attack, by title, and of its stages, by `TITLE/STAGE`.
        threat: the name of the threat model, in titles; empty for that of the record.
    """

    split: Split
    rows: Tensor
    start: int
    target: Target
    protocol: Protocol
    attacks: AttackSource
    cache: ChunkCache | None
    bar: Bar
    columns: Columns = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    threat: str = ""

    def title(self, name: str) -> str:
        """Return what an attack is called in columns and files."""
        return titled(self.threat, name)

    def under(self, threat: AttackedThreat) -> Chunk:
        """Return the chunk under another threat model of the protocol.

        It has the columns made so far, and wall times in common with this one.
        """
        return replace(
            self,
            target=replace(self.target, threat=threat.model),
            protocol=self.protocol.under(threat),
            columns={**self.columns},
            threat=threat.slug,
        )

    @property
    def correct(self) -> Tensor:
        """Which images are classified correctly without attack, N booleans."""
        return torch.as_tensor(self.columns["clean_pred"]) == self.split.labels
