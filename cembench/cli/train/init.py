"""`cembench init`: a recipe as a file of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from cembench.cli.base import FILE, Command, say
from cembench.cli.names import name_or_file

RECIPES = name_or_file("recipes")


@click.command("init", cls=Command, example="mine.yaml --recipe cifar10-at")
@click.argument("config", type=FILE)
@click.option("--recipe", default="digits-at", shell_complete=RECIPES, help="See `list recipes`.")
@click.option("--force", is_flag=True, help="Overwrite the file if there is one.")
def command(config: Path, recipe: str, force: bool) -> None:
    """Write a recipe to a file, to change it.

    Prints the command that takes the file."""
    from cembench.training.recipes import copy_recipe

    kind = copy_recipe(recipe, config, force)
    say(f"cembench {'run' if kind == 'suite' else 'train'} {config}")
