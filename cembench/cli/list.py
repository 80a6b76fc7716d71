"""`cembench list`: the names that a config can use."""

from __future__ import annotations

import click

from cembench.cli.base import Command, show
from cembench.cli.names import KINDS, names


@click.command("list", cls=Command, example="samplers")
@click.argument("kind", required=False, type=click.Choice([*KINDS, "published"]))
def command(kind: str | None) -> None:
    """List the names that a config can use.

    `published`: published results that come with cembench.
    """
    if kind == "published":
        from cembench.reporting.leaderboard.published import published, published_board

        show([board for board in [published_board(published()["dataset"])] if board])
        return
    if kind == "recipes":
        from cembench.training.recipes import recipes

        for name, *rest in recipes():
            click.echo("{:20} {:10}  {:13}  {}".format(name, *rest))
        return
    for key in [kind] if kind else KINDS:
        click.echo("\n".join(names(key)) if kind else f"{key}: {', '.join(names(key))}")
