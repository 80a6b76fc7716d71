"""`cembench`, and `python -m cembench`: the command line, which a signal ends in one line.

Nothing else is imported before signals are handled.
"""

from __future__ import annotations

from cembench.util.stopping import handle_signals


def main() -> None:
    """Handle signals, then run the command line."""
    handle_signals()
    from cembench.cli import main as commands

    commands(prog_name="cembench")


if __name__ == "__main__":
    main()
