"""`cembench doctor`: what this machine can do."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from cembench.cli.base import JSON, Command, say
from cembench.cli.codes import DONE, FOUND
from cembench.util.display.json_text import to_json

CODES = {DONE: "nothing would make cembench fail", FOUND: "a problem"}


@click.command("doctor", cls=Command, example="--json", codes=CODES)
@JSON(help="Print the findings as JSON, for a bug report.")
def command(as_json: bool) -> None:
    """Say what this machine can do, and what is missing.

    Devices, threads, precision, extras, caches, data found, locks. Nothing is downloaded, and no
    plugin is imported. What is secret is not shown, and your home is `~`.
    """
    from cembench.doctor import examine

    registry = sys.modules.get("cembench.util.registry")  # which only plugins have imported
    found = examine(registry.named_plugins() if registry else ())
    problems = sum(one.state == "problem" for one in found)
    if as_json:
        say(to_json([asdict(one) for one in found]))
    else:
        topic = ""
        for one in found:
            if one.topic != topic:
                say(f"\n{one.topic}" if topic else one.topic)
                topic = one.topic
            say(f"  {one.state:7}  {one.text}")
            if one.remedy:
                say(f"           → {one.remedy}")
        notes = sum(one.state == "note" for one in found)
        say(f"\nproblems: {problems}, notes: {notes}")
    sys.exit(FOUND if problems else DONE)
