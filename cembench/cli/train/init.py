"""`cembench init`: a config of one's own, with every key explained."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import EXPERIMENT, FILE, SET, SETTINGS, Command, say
from cembench.cli.names import name_or_file, offer
from cembench.util.errors import CembenchError

EXAMPLE = "mine.yaml --data cifar10 --method trades epochs=50"


@click.command("init", cls=Command, settings=EXPERIMENT, example=EXAMPLE)
@click.argument("config", type=FILE)
@SETTINGS
@click.option("--data", shell_complete=offer("datasets"), help="Data set. Default: digits.")
@click.option(
    *("--method", "names"),
    multiple=True,
    shell_complete=offer("methods"),
    help="Training method; several for a suite. Default: at.",
)
@click.option("--model", shell_complete=offer("models"), help="Network. Default: as recipes do.")
@click.option("--suite", is_flag=True, help="Write a suite, with an experiment a method.")
@click.option("--recipe", shell_complete=name_or_file("recipes"), help="Copy a recipe instead.")
@SET(help="The same as KEY=VALUE.")
@click.option("--force", is_flag=True, help="Overwrite the file if there is one.")
def command(
    config: Path,
    data: str | None,
    names: tuple[str, ...],
    model: str | None,
    suite: bool,
    recipe: str | None,
    overrides: tuple[str, ...],
    force: bool,
) -> None:
    """Write a config to change: for a data set and a method.

    Every key is in it, with its meaning, its choices and its default. Values are those of the
    nearest recipe, and KEY=VALUE changes them. Prints the command that takes the file.
    """
    from cembench.training.recipes import copy_recipe, write_config

    if recipe is not None:
        if data or names or model or suite or overrides:
            raise CembenchError("--recipe copies a file as it is; leave out the rest, or --recipe")
        suite = copy_recipe(recipe, config, force) == "suite"
    else:
        from cembench.reporting.new_config import new_experiment, new_suite

        if len(names) > 1 and not suite:
            raise CembenchError(f"{len(names)} methods are a suite; add --suite")
        given = data or "digits", model, overrides
        if suite:
            text = new_suite(config, given[0], names, *given[1:])
        else:
            text = new_experiment(config, given[0], (*names, "at")[0], *given[1:])
        write_config(config, text.encode(), force)
    say(f"cembench {'run' if suite else 'train'} {config}")
