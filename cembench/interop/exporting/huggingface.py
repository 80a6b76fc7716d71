"""Hugging Face folder: weights, config, a model card made from the record, and samples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cembench.evaluation.record import Record
from cembench.evaluation.sections.threats import UNION, threat_of
from cembench.interop.exporting import find_record, merge_fields
from cembench.models.source import ModelSource
from cembench.util.display.format import number, percent, with_error, with_interval
from cembench.util.display.markdown import markdown_text
from cembench.util.files import read_bytes, write_bytes, write_text
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import shown
from cembench.util.files.yaml import to_yaml

FIELDS = {"licence": "other", "name": "", "authors": "", "link": "", "address": ""}


def write(source: ModelSource, out: Path, record: Path | None, fields: dict[str, object]) -> Path:
    """Write `model.safetensors`, `config.json`, `README.md`, `record.json` and `samples.png`.

    Raises:
        CembenchError: when there are no figures, or the folder cannot be written.
    """
    found, place = find_record(source, record)
    texts = {key: str(value) for key, value in merge_fields(fields, FIELDS).items()}
    texts["name"] = texts["name"] or source.name
    grid = _grid(found, place)
    config = {"library_name": "cembench", **source.metadata.dump()}
    write_bytes(RunLayout(out).checkpoint, read_bytes(source.file))
    write_text(out / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_bytes(out / "record.json", read_bytes(place))
    if grid is not None:
        write_bytes(out / "samples.png", grid)
    write_text(out / "README.md", card(source, found, texts, grid is not None))
    return out


def card(source: ModelSource, record: Record, texts: dict[str, str], pictured: bool) -> str:
    """Return the model card: YAML for the hub's search, then Markdown for readers.

    It needs the texts of `FIELDS`, and to know whether there is a picture of samples.
    """
    lead = None if record.generation is None else next(iter(record.generation.samplers.items()))
    template = _templates().get_template("card.md.jinja")
    page = template.render(
        metadata=source.metadata, record=record, texts=texts, pictured=pictured, lead=lead
    )
    front = shown(to_yaml(_front_matter(source, record, texts)), kept="\n")
    return f"---\n{front}---\n\n{page}"


def _front_matter(source: ModelSource, record: Record, texts: dict[str, str]) -> dict[str, Any]:
    """Return the hub's metadata, as <https://github.com/huggingface/hub-docs> documents it."""
    task = "feature-extraction" if record.kind == "encoder" else "image-classification"
    metrics = [
        {
            "type": "accuracy",
            "name": f"{_under(record, name)} accuracy{figure.mark}",
            "value": round(figure.accuracy, 6),
        }
        for name, figure in record.accuracies.items()
    ]
    data = {"name": record.dataset, "type": record.dataset, "split": record.split}
    result = {"task": {"type": task}, "dataset": data, "metrics": metrics}
    index = [{"name": texts["name"], "results": [result]}] if metrics else []
    return {
        "library_name": "cembench",
        "license": texts["licence"],
        "pipeline_tag": task,
        "datasets": [record.dataset],
        "tags": ["adversarial-robustness", "energy-based-model", source.metadata.method],
        **({"model-index": index} if index else {}),
    }


def _under(record: Record, name: str) -> str:
    """Return the name of an accuracy with its threat model."""
    own = name in ("clean", UNION) or threat_of(name)
    return name if own else f"{record.threat} {name}"


def _templates() -> Environment:
    """Return the templates, in which values stay text: Markdown may hold links, code and HTML."""
    place = PackageLoader("cembench.interop.exporting", "")
    templates = Environment(
        loader=place,
        autoescape=True,
        finalize=_as_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    formats = (number, percent, with_error, with_interval)
    templates.globals |= {function.__name__: function for function in formats}
    templates.filters["verbatim"] = _verbatim
    return templates


def _as_text(value: Any) -> Any:
    made_here = isinstance(value, Markup) or not isinstance(value, str)
    return value if made_here else Markup(markdown_text(value))


def _verbatim(text: object) -> Markup:
    """Return a text for a code span or a link in angle brackets, without what would end it."""
    return Markup(re.sub("[`<>]", "", shown(str(text))))


def _grid(record: Record, place: Path) -> bytes | None:
    """Return the sample grid of the first sampler, as the evaluation wrote it."""
    if record.generation is None:
        return None
    title, found = next(iter(record.generation.samplers.items()))
    if found.error is not None:
        return None
    return read_bytes(RunLayout.picture(place, title))
