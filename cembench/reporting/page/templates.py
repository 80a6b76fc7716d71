"""Templates, styles and scripts of pages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cembench.reporting.page.tables import marks
from cembench.util.display import latex, markdown
from cembench.util.display.format import with_error
from cembench.util.files.names import shown
from cembench.util.files.yaml import to_yaml

OWN = "cembench.reporting.page"
ESCAPES = {
    one.__name__.rpartition(".")[2]: {"special": one.SPECIAL, "named": one.NAMED}
    for one in (latex, markdown)
}


@cache  # to compile the templates takes longer than to write a page with them
def templates(*packages: str) -> Environment:
    """Return the templates in the assets of packages, those of the report last."""
    loaders = [PackageLoader(package, "assets") for package in (*packages, OWN)]
    made = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"marks_of": marks, "with_error": with_error, "to_yaml": to_yaml}
    return made


def script(names: Iterable[str], *more: str) -> str:
    """Return parts of the script as one, and more code; they share their names and no others."""
    parts = "".join([*(asset(f"script/{name}.js") for name in names), *more])
    return f'"use strict";\n(() => {{\nconst ESCAPES = {json.dumps(ESCAPES)};\n{parts}}})();\n'


def asset(name: str, package: str = OWN) -> str:
    """Return a file of the assets of a package."""
    return files(package).joinpath("assets", name).read_text("utf-8")


def _visible(value: Any) -> Any:
    """Return a value without what turns the direction of writing, or is not seen."""
    made_here = isinstance(value, Markup) or not isinstance(value, str)
    return value if made_here else shown(value, kept="\n\N{NO-BREAK SPACE}")
