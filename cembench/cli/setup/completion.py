"""`cembench completion`: shell completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cembench.cli.base import Command


@click.command("completion", cls=Command, example="bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script for completion in a shell.

    It completes commands, options, names and files.

    bash, in ~/.bashrc: eval "$(cembench completion bash)"; zsh, in ~/.zshrc, the same with zsh;
    fish: cembench completion fish > ~/.config/fish/completions/cembench.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "cembench", "_CEMBENCH_COMPLETE").source())
