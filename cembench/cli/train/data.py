"""`cembench data`: images that are decoded once and kept on disk."""

from __future__ import annotations

from typing import Any

import click

from cembench.cli.base import Command, say
from cembench.util.display.format import byte_size
from cembench.util.errors import CembenchError

ACTIONS = click.Choice(["prepare", "list", "remove"])


@click.command("data", cls=Command, example="prepare folder root=~/flowers size=224")
@click.argument("action", type=ACTIONS)
@click.argument("what", nargs=-1, metavar="[DATA [KEY=VALUE]... | KEY...]")
@click.option("--verify", is_flag=True, help="With prepare: read all again and check it.")
def command(action: str, what: tuple[str, ...], verify: bool) -> None:
    """Keep decoded images on disk: prepare, list or remove them.

    prepare decodes the images of DATA once and keeps them on disk; training and evaluation do the
    same at first use. DATA is a data set, such as `folder`, with KEY=VALUE for its settings, or a
    config or recipe, whose `data` is taken. What was interrupted goes on, and what is missing or
    damaged is made again.

    list shows what is kept and under which key; remove deletes what the keys name, or `all`.
    """
    if verify and action != "prepare":
        raise CembenchError("--verify: goes with prepare")
    {"prepare": _prepare, "list": _list, "remove": _remove}[action](what, verify)


def _prepare(what: tuple[str, ...], verify: bool) -> None:
    from cembench.data.roots import remember

    data = _data(what)
    remember(data)
    for number, part in enumerate(data.members):
        for split in ("train",) if number else ("train", "test"):  # a mix tests on its first part
            found = part.prepare(split, verify)
            channels, height, width = found.shape
            size = byte_size(len(found) * channels * height * width)
            title = f"{part.title}, {split} split"
            say(f"{title}: {len(found):,} images of {channels}×{height}×{width}, {size}")
            say(f"  {found.store.place}\n  fingerprint {found.fingerprint}")


def _data(what: tuple[str, ...]) -> Any:
    from cembench.cli.base import require_assignments
    from cembench.data import datasets
    from cembench.util.errors import blaming
    from cembench.util.overrides import override

    if not what:
        raise CembenchError("name a data set, a config or a recipe to prepare the data of")
    word, *changes = what
    values = {"name": word} if word in datasets.names() else _data_of_config(word)
    with blaming(word):
        return datasets.parse(override(values, require_assignments(tuple(changes)), word))


def _data_of_config(word: str) -> dict[str, Any]:
    from pathlib import Path

    from cembench.data import datasets
    from cembench.util.errors import ConfigError
    from cembench.util.files.yaml import read_yaml
    from cembench.util.settings import nearest
    from cembench.util.shipped import find_file, shipped

    try:
        file = find_file("recipe", word)
    except ConfigError:
        known = [*datasets.names(), *shipped("recipe")]
        raise ConfigError.single(
            f"no data set, recipe or file '{word}'; {nearest(word, known)}"
        ) from None
    values = read_yaml(file)
    data = values.get("shared", values).get("data")
    if isinstance(data, str):
        return {"name": data}
    if not isinstance(data, dict):
        raise ConfigError.single(f"{Path(file)}: has no `data`")
    return data


def _list(what: tuple[str, ...], _: bool) -> None:
    from cembench.data.files.prepared import all_prepared, prepared_root
    from cembench.util.display.text_table import text_table

    if what:
        raise CembenchError(f"{what[0]}: one argument too many")
    rows = []
    for prepared in all_prepared():
        index = prepared.index()
        title, state = (index.title, "") if index else ("", "damaged")
        if index and not index.fingerprint:
            state = "not finished"
        rows.append([prepared.folder.name, byte_size(prepared.size), title, state])
    if not rows:
        say(f"nothing is prepared in {prepared_root()}")
        return
    say("\n".join(text_table(["key", "size", "images", ""], rows)))


def _remove(what: tuple[str, ...], _: bool) -> None:
    from cembench.data.files.prepared import all_prepared, prepared_root
    from cembench.util.settings import nearest

    found = {prepared.folder.name: prepared for prepared in all_prepared()}
    if not what:
        raise CembenchError("name keys of `cembench data list`, or `all`")
    for key in found if what == ("all",) else what:
        if key not in found:
            known = nearest(key, found) if found else "nothing is prepared"
            raise CembenchError(f"no key '{key}' in {prepared_root()}; {known}")
        size = found[key].size
        found[key].remove()
        say(f"removed {key}, {byte_size(size)}")
