"""Methods: what the registry says of each, and its runs on all data sets."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any

from cembench.methods import methods
from cembench.reporting.page.runs import Run
from cembench.reporting.site.group_pages import cut
from cembench.reporting.site.groups import Group, summaries
from cembench.reporting.site.names import page_name
from cembench.reporting.site.pages import Pages
from cembench.util.display.keys import summary


def by_method(groups: Sequence[Group]) -> dict[str, list[tuple[Group, list[Run]]]]:
    """Return the runs of each method by their groups."""
    found: dict[str, list[tuple[Group, list[Run]]]] = {}
    for group in groups:
        for method in group.methods:
            own = [run for run in group.runs if run.record.method == method]
            found.setdefault(method, []).append((group, own))
    return dict(sorted(found.items()))


def write_method(pages: Pages, method: str, own: Sequence[tuple[Group, list[Run]]]) -> None:
    """Write the page of a method, and its runs as data."""
    folder = f"methods/{page_name(method)}"
    tables = [(group, cut(one)) for group, runs in own for one in summaries(group, runs)]
    values: dict[str, Any] = {"method": method, "texts": describe(method), "tables": tables}
    pages.write(f"{folder}/index.html", "method.html", **values, **pages.parts({}))
    rows = [_values(group, run) for group, runs in own for run in runs]
    pages.folder.write_json(f"{folder}/runs.json", {"method": method, "runs": rows})


def describe(method: str) -> list[str]:
    """Return what the registry says of a method and its parts; nothing of one that it lacks."""
    known = set(methods.known())
    return [text for name in re.split(r"[+ ]", method) if name in known for text in _texts(name)]


def _texts(name: str) -> list[str]:
    cls = methods.find(name)
    module = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "").split("\n\n")
    texts = [*module, summary(cls.__doc__)]
    return [" ".join(text.split()) for text in texts if text.strip()]


def _values(group: Group, run: Run) -> dict[str, Any]:
    record = run.record
    rates = {name: figure.accuracy for name, figure in record.accuracies.items()}
    own = {"run": record.run, "seed": record.seed, "page": run.link, "created": record.created}
    way: dict[str, Any] = {"dataset": group.dataset, "threat": group.threat}
    way["split"] = record.split
    way |= {"protocol": record.protocol.get("name"), "protocol_digest": record.protocol_digest}
    return {**own, **way, "weights_sha256": record.weights_sha256, "accuracies": rates}
