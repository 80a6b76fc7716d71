"""What a config can name, by kind: for `cembench list`, and for the shell to complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from cembench.util.shipped import shipped

TABLES = {
    "methods": "cembench.methods",
    "perturbations": "cembench.methods.perturbation",
    "models": "cembench.models",
    "heads": "cembench.models.heads",
    "datasets": "cembench.data",
    "samplers": "cembench.samplers",
    "engines": "cembench.models.engine",
    "attacks": "cembench.attacks",
    "extractors": "cembench.evaluation.extractors",
    "metrics": "cembench.evaluation.metrics",
    "trackers": "cembench.training.trackers",
}
KINDS = [*TABLES, "protocols", "recipes"]

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def names(kind: str) -> list[str]:
    """Return all names of a kind, those of plugins included."""
    if kind == "protocols":
        return shipped("protocol")
    if kind == "recipes":
        return shipped("recipe")
    found: list[str] = _table(kind).names()
    return found


def classes(name: str) -> list[tuple[str, Any]]:
    """Return the settings class of a name in each kind that has it, by kind."""
    return [(kind, _table(kind).find(name)) for kind in TABLES if name in names(kind)]


def offer(kind: str) -> Offer:
    """Return what completes a name of a kind: at once, so without importing plugins."""

    def complete(
        context: click.Context, parameter: click.Parameter, start: str
    ) -> list[CompletionItem[str]]:
        return starting(_table(kind).known(), start)

    return complete


def name_or_file(kind: str) -> Offer:
    """Return what completes the name of a protocol or recipe, or the path of a file."""

    def complete(
        context: click.Context, parameter: click.Parameter, start: str
    ) -> list[CompletionItem[str]]:
        return starting(names(kind), start) or file(context, parameter, start)

    return complete


def file(
    context: click.Context, parameter: click.Parameter, start: str
) -> list[CompletionItem[str]]:
    """Leave a path to the shell."""
    return [CompletionItem(start, type="file")]


def _table(kind: str) -> Any:
    return getattr(import_module(TABLES[kind]), kind)


def starting(known: Iterable[str], start: str) -> list[CompletionItem[str]]:
    """Return the known names that begin so."""
    return [CompletionItem(name) for name in known if name.startswith(start)]
