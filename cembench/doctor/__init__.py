"""Doctor: what this machine can do, what would make cembench fail, and the remedies.

Nothing is downloaded, no plugin is imported and no data is read. Torch is imported where it can be.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from cembench.doctor import data, machine, places, software, variables
from cembench.doctor.finding import Check, Finding, found_by


def examine(plugins: tuple[str, ...] = ()) -> list[Finding]:
    """Return all findings, those of a topic one after the other; the user's home is `~`.

    Args:
        plugins: modules that the user named.
    """
    checks: list[tuple[str, Check]] = [
        ("software", software.python),
        ("software", software.packages),
        ("extras", software.extras),
        ("plugins", partial(software.plugins, plugins)),
        ("torch", machine.torch_itself),
        ("threads", machine.threads),
        ("memory", machine.memory),
        ("working folder", places.working_folder),
        ("caches", places.caches),
        ("data", data.data_sets),
        ("environment", variables.variables),
    ]
    found = [finding for topic, check in checks for finding in found_by(topic, check)]
    home = str(Path.home())
    return [replace(one, text=one.text.replace(home, "~")) for one in found]
