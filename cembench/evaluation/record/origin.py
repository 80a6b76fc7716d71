"""Origin of a record: the files beside it, or what was kept in memory in their place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cembench.util.errors import CembenchError
from cembench.util.settings import nearest

if TYPE_CHECKING:
    import pandas as pd

    from cembench.evaluation.record.adversarial import Adversarial


@dataclass
class Origin:
    """Where a record comes from; records that say the same are equal wherever they come from.

    Attributes:
        path: its file; None where it has none.
        table: the table of verdicts, if that has no file.
        images: adversarial images by attack, if they have no files.
    """

    path: Path | None = field(default=None, compare=False)
    table: pd.DataFrame | None = field(default=None, compare=False)
    images: dict[str, Adversarial] = field(default_factory=dict, compare=False)

    def verdicts(self, record: Any) -> pd.DataFrame:
        """Return the table of verdicts."""
        from cembench.evaluation.record.files import load_table

        if self.table is not None:
            return self.table
        if self.path is None:
            raise CembenchError(f"{record.run}: its table of verdicts was not kept; give out=…")
        return load_table(self.path, record)

    def adversarial(self, record: Any, attack: str) -> Adversarial:
        """Return the adversarial images of an attack."""
        from cembench.evaluation.record.adversarial import read_adversarial

        table = self.verdicts(record)
        if attack not in (attacks := _attacks(table)):
            raise CembenchError(f"the record has no attack '{attack}'; {nearest(attack, attacks)}")
        if self.path is not None:
            return read_adversarial(self.path, attack, table)
        if attack not in self.images:
            raise CembenchError(f"{record.run}: its images were not kept; save_adversarial=True")
        return self.images[attack]

    def in_memory(self, record: Any, images: bool) -> Origin:
        """Return the same without files, which are about to be removed.

        Args:
            record: the record.
            images: whether adversarial images were kept.
        """
        if record.error is not None or record.kind != "classifier":
            return Origin()
        table = self.verdicts(record)
        kept = _attacks(table) if images else []
        return Origin(None, table, {attack: self.adversarial(record, attack) for attack in kept})


def _attacks(table: pd.DataFrame) -> list[str]:
    columns = map(str, table.columns)
    return [name.removesuffix("_broken") for name in columns if name.endswith("_broken")]
