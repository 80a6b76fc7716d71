"""Recipes: the experiments and suites that come with cembench, as YAML files to run or to copy.

The first comment line of a file describes it. Nothing here imports torch or pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, write_bytes
from cembench.util.files.yaml import read_yaml
from cembench.util.shipped import find_file, shipped

Kind = Literal["experiment", "suite"]


class Recipe(NamedTuple):
    """What a list says of a recipe.

    Attributes:
        name: that of the file.
        kind: whether `cembench train` or `cembench run` takes it.
        data: name of the data set.
        description: one sentence.
    """

    name: str
    kind: Kind
    data: str
    description: str


def recipes() -> list[Recipe]:
    """Return all recipes, by name."""
    return [_described(name) for name in shipped("recipe")]


def kind_of(values: Mapping[str, Any]) -> Kind:
    """Return what the content of a YAML file is: one experiment, or a suite of them."""
    return "suite" if {"experiments", "grid"} & values.keys() else "experiment"


def copy_recipe(name: str, to: Path, overwrite: bool = False) -> Kind:
    """Copy a recipe, with its comments, to a file to start from; return what it is.

    Raises:
        CembenchError: for an unknown recipe, and as `write_config`.
    """
    source = find_file("recipe", name)
    write_config(to, read_bytes(source), overwrite)
    return kind_of(read_yaml(source))


def write_config(to: Path, content: bytes, overwrite: bool = False) -> None:
    """Write a file of settings.

    Raises:
        CembenchError: for a file that is there already, or one that no command would take.
    """
    if to.suffix not in (".yaml", ".yml"):
        raise CembenchError(f"{to}: settings are kept in a .yaml file")
    if to.exists() and not overwrite:
        raise CembenchError(f"{to} is there already; --force overwrites it")
    write_bytes(to, content)


def _described(name: str) -> Recipe:
    file = find_file("recipe", name)
    values = read_yaml(file)
    data = values.get("shared", values)["data"]
    title = data if isinstance(data, str) else data["name"]
    first = read_bytes(file).decode().splitlines()[0]
    return Recipe(name, kind_of(values), title, first.removeprefix("# "))
