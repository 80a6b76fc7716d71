"""`cembench list`: the names that a config can use, and what each of them takes."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from cembench.cli.base import Command, say, show
from cembench.cli.names import KINDS, classes, names, starting
from cembench.util.shipped import Kind, find_file

if TYPE_CHECKING:
    from cembench.attacks import Attack
    from cembench.util.settings import Settings

MEANING = 44  # narrowest column of the meanings


def offered(
    context: click.Context, parameter: click.Parameter, start: str
) -> list[CompletionItem[str]]:
    """Complete a kind of names."""
    return starting([*KINDS, "published"], start)


@click.command("list", cls=Command, example="rcs")
@click.argument("name", required=False, shell_complete=offered, metavar="[KIND|NAME]")
def command(name: str | None) -> None:
    """List the names that a config can use, or the keys of one.

    KIND is one of methods, models, datasets, …; NAME a name of any kind, such as trades or rcs.
    `published`: published results that come with cembench.
    """
    if name == "published":
        from cembench.reporting.leaderboard.published import published, published_board

        show([board for board in [published_board(published()["dataset"])] if board])
    elif name is None:
        for kind in KINDS:
            say(f"{kind}: {', '.join(names(kind))}")
    elif name == "recipes":
        from cembench.training.recipes import recipes

        for recipe in recipes():
            say("{:20} {:10}  {:13}  {}".format(*recipe))
    elif name in KINDS:
        say("\n".join(_attacks() if name == "attacks" else names(name)))
    else:
        say("\n\n".join(_pages(name)))


def _attacks() -> list[str]:
    """Return the lines of two tables: attacks by name, and those of libraries."""
    from cembench.attacks import attacks
    from cembench.attacks.library import LibraryAttack
    from cembench.util.display.text_table import text_table

    own, others = [], []
    for name in attacks.names():
        cls = attacks.find(name)
        if issubclass(cls, LibraryAttack):
            every = [cls.model_construct(attack=one, args={}) for one in cls.known]
            others += [[name, one.attack, *_about(one), one.offer.note] for one in every]
        else:
            fields = cls.model_fields.items()
            needed: dict[str, Any] = {key: "" for key, field in fields if field.is_required()}
            own.append([name, *_about(cls.model_construct(**needed))])
    about = ["norm", "proposes", "needs"]
    own_table = text_table(["name", *about], own)
    return [*own_table, "", *text_table(["name", "attack", *about, "note"], others)]


def _about(attack: Attack) -> list[str]:
    """Return the norms of an attack, what it proposes, and what it needs."""
    norms = "any" if attack.norms is None else ", ".join(sorted(attack.norms))
    blind = attack.black_box
    needs = "outputs" if blind == {attack.title} else "gradients"
    if blind is None:
        needs = "unknown"
    elif blind and blind != {attack.title}:
        needs += f", {', '.join(sorted(blind))}: outputs"
    if attack.minimises:
        own = "any" if "norm" in type(attack).model_fields else attack.minimises
        return [own, "the smallest change", needs]
    return [norms, "images in the ball", needs]


def _pages(name: str) -> list[str]:
    """Return a page for each kind that has the name.

    Raises:
        CembenchError: for a name that none has, with the nearest one.
    """
    from cembench.util.errors import CembenchError
    from cembench.util.settings import nearest

    if name in names("protocols"):
        return [_file("protocol", name)]
    if name in names("recipes"):
        return [_file("recipe", name)]
    found = [_page(name, kind, cls) for kind, cls in classes(name)]
    if not found:
        known = {*KINDS, "published", *(one for kind in KINDS for one in names(kind))}
        raise CembenchError(f"nothing is called '{name}'; {nearest(name, known)}")
    return found


def _file(kind: Kind, name: str) -> str:
    from cembench.util.files import read_bytes

    return f"{name} ({kind}s)\n\n{read_bytes(find_file(kind, name)).decode().rstrip()}"


def _page(name: str, kind: str, cls: type[Settings]) -> str:
    from cembench.reporting.keys import key_rows
    from cembench.util.display.keys import summary

    title = f"{name} ({kind}): {summary(cls.__doc__)}"
    lines = _folded(key_rows(cls)) or ["It has no settings."]
    return "\n".join([textwrap.fill(title, _width()), "", *lines])


def _folded(rows: list[list[str]]) -> list[str]:
    """Return the lines of a table of keys, in which the meaning is folded."""
    from cembench.util.display.text_table import text_table

    lines: list[list[str]] = []
    before = sum(max((len(row[i]) for row in rows), default=0) + 2 for i in range(3))
    room = max(MEANING, _width() - before)
    for *cells, meaning in rows:
        first, *more = textwrap.wrap(meaning, room) or [""]
        lines += [[*cells, first], *(["", "", "", part] for part in more)]
    return text_table(["key", "type", "default", "meaning"], lines) if rows else []


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns
