"""Pages of the configuration: `::settings PATH` and `::registry PATH` become tables of keys.

A section per class, and after them one per settings class that their keys hold and no other
directive names. The build fails on a key without a description and a registry without a page.
"""

from __future__ import annotations

import re
from posixpath import dirname, relpath
from typing import Any

import griffe
import source
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

DIRECTIVE = re.compile(r"^::(settings|registry) (\S+)$", re.M)
HEAD = "| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
KEYS = '<div class="keys"></div>\n\n'  # for the style of the tables after it
_sections: dict[str, dict[str, griffe.Class]] = {}  # of each directive: classes by title
_places: dict[str, tuple[str, str]] = {}  # of each class: its title, and its page and anchor


def on_files(files: Files, **_: Any) -> Files:
    """Read the source, which `mkdocs serve` may have seen change; note which page has what."""
    source.package.cache_clear()
    _sections.clear()
    _places.clear()
    pages = {}
    for file in files.documentation_pages():
        for kind, path in DIRECTIVE.findall(file.content_string):
            pages[path] = file.src_uri
            _sections[path] = {}
            for title, cls in _named(kind, path, file.src_uri).items():
                _place(path, title, cls, file.src_uri)
    for path, sections in _sections.items():
        waiting = list(sections.values())
        while waiting:
            inner = [cls for cls in _held(waiting.pop(0)) if cls.path not in _places]
            waiting += inner
            for cls in inner:
                _place(path, cls.name, cls, pages[path])
    if missing := set(source.registries()) - set(_sections):
        raise PluginError(f"on no page of the configuration: {', '.join(missing)}")
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Write the tables."""

    def written(match: re.Match[str]) -> str:
        sections = _sections[match[2]].items()
        return KEYS + "\n\n".join(_section(title, cls, page) for title, cls in sections)

    return DIRECTIVE.sub(written, markdown)


def _named(kind: str, path: str, page: str) -> dict[str, griffe.Class]:
    """Return the classes that a directive names, by title."""
    if kind == "settings":
        cls = source.find(path)
        return {cls.name: cls}
    word, base, entries = source.registry(path)
    _places[base.path] = (word, page)
    return {f"`{name}`": cls for name, cls in entries.items()}


def _place(path: str, title: str, cls: griffe.Class, page: str) -> None:
    _sections[path][title] = cls
    _places[cls.path] = (title, f"{page}#{_anchor(title)}")


def _anchor(title: str) -> str:
    return title.strip("`").lower()


def _held(cls: griffe.Class) -> list[griffe.Class]:
    """Return the settings classes in the types of a class's keys."""
    found: dict[str, griffe.Class] = {}
    for key in source.keys(cls).values():
        source.type_of(key, lambda c: found.setdefault(c.path, c).name)
    return list(found.values())


def _section(title: str, cls: griffe.Class, page: Page) -> str:
    keys = source.keys(cls)
    if bare := [name for name, key in keys.items() if not source.description(cls, key)]:
        raise PluginError(f"{cls.path}: no description of {', '.join(bare)} under Attributes")
    rows = [_row(cls, key, page) for key in keys.values()]
    table = HEAD + "\n".join(rows) if rows else ""
    return f"## {title} {{ #{_anchor(title)} }}\n\n{source.text_of(cls)}\n\n{table}"


def _row(cls: griffe.Class, key: griffe.Attribute, page: Page) -> str:
    def link(found: griffe.Object) -> str:
        title, place = _places[found.path]
        return f"[{title}]({relpath(place, dirname(page.file.src_uri))})"

    said = source.description(cls, key)
    meaning = said[:1].upper() + said[1:] if said[:1].isascii() else said
    cells = (f"`{key.name}`", source.type_of(key, link), source.default_of(key), meaning)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
