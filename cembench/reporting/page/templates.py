"""Templates, styles and scripts of pages."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from cembench.reporting.page.tables import marks, of_chart
from cembench.util.display.format import with_error
from cembench.util.files.yaml import to_yaml

OWN = "cembench.reporting.page"


def templates(*packages: str) -> Environment:
    """Return the templates in the assets of packages, those of the report last."""
    loaders = [PackageLoader(package, "assets") for package in (*packages, OWN)]
    made = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"marks_of": marks, "of_chart": of_chart}
    made.globals |= {"with_error": with_error, "to_yaml": to_yaml}
    return made


def script(names: Iterable[str], *more: str) -> str:
    """Return parts of the script as one, and more code; they share their names and no others."""
    parts = "".join([*(asset(f"script/{name}.js") for name in names), *more])
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def asset(name: str, package: str = OWN) -> str:
    """Return a file of the assets of a package."""
    return files(package).joinpath("assets", name).read_text("utf-8")
