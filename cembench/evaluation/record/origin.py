"""Origin of a record: what was kept beside it, in files or in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cembench.util.errors import CembenchError
from cembench.util.settings import nearest

if TYPE_CHECKING:
    import pandas as pd

    from cembench.evaluation.record.adversarial import Adversarial


class Origin:
    """Where a record comes from, of which nothing was kept.

    Records that say the same are equal wherever they come from.
    """

    def verdicts(self, record: Any) -> pd.DataFrame:
        """Return the table of verdicts."""
        raise CembenchError(f"{record.run}: its table of verdicts was not kept; give out=…")

    def adversarial(self, record: Any, attack: str) -> Adversarial:
        """Return the adversarial images of an attack."""
        table = self.verdicts(record)
        if attack not in (attacks := attacks_of(table)):
            raise CembenchError(f"the record has no attack '{attack}'; {nearest(attack, attacks)}")
        return self._images(record, attack, table)

    def _images(self, record: Any, attack: str, table: pd.DataFrame) -> Adversarial:
        raise CembenchError(f"{record.run}: its images were not kept; save_adversarial=True")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return 0


class InMemory(Origin):
    """What is kept of a record without a file.

    Args:
        table: the table of verdicts.
        images: adversarial images by attack; none where they were not kept.
    """

    def __init__(self, table: pd.DataFrame, images: dict[str, Adversarial]) -> None:
        self.table, self.images = table, images

    def verdicts(self, record: Any) -> pd.DataFrame:
        """Return the table of verdicts."""
        return self.table

    def _images(self, record: Any, attack: str, table: pd.DataFrame) -> Adversarial:
        return self.images.get(attack) or super()._images(record, attack, table)


def in_memory(record: Any, images: bool) -> Origin:
    """Return what is kept of a record whose files are about to be removed.

    Args:
        record: the record.
        images: whether adversarial images were kept.
    """
    if record.error is not None or record.kind != "classifier":
        return Origin()
    table = record.verdicts()
    kept = attacks_of(table) if images else []
    return InMemory(table, {attack: record.adversarial(attack) for attack in kept})


def attacks_of(table: pd.DataFrame) -> list[str]:
    """Return the attacks that a table of verdicts is about."""
    columns = map(str, table.columns)
    return [name.removesuffix("_broken") for name in columns if name.endswith("_broken")]
