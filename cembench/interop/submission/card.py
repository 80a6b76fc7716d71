"""Card of an entry: the model card of its record, which the keeper makes anew."""

from __future__ import annotations

from pathlib import Path

from cembench.evaluation.record import Record
from cembench.evaluation.record.display import line
from cembench.interop.exporting.huggingface import FIELDS, card
from cembench.interop.submission.entry import CARD, EntryFacts
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files import write_text
from cembench.util.files.layout import RunLayout


def write_card(folder: Path, record: Record, facts: EntryFacts) -> None:
    """Write `README.md` from the record; a line of figures where the network is not known here.

    Raises:
        CembenchError: when it cannot be written.
    """
    said = {key: getattr(facts, key) for key in ("licence", "name", "authors", "link")}
    texts = {**FIELDS, **said}
    try:
        text = card(ModelSource.at(RunLayout(folder).checkpoint), record, texts, pictured=False)
    except CembenchError:
        text = f"# {facts.name}\n\n    {line(record)}\n"
    write_text(folder / CARD, text)
