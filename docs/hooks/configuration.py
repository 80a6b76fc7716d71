"""Pages of the configuration: `::settings PATH` and `::registry PATH` become tables of keys.

The build fails on a key without a description, and on settings or a registry that no page has.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Any

import griffe
import source
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from words import Type, default_of, type_of

DIRECTIVE = re.compile(r"^::(settings|registry) (\S+)$", re.M)
HEAD = "| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
KEYS = '<div class="keys"></div>\n\n'  # for the style of the tables after it
_places: dict[str, str] = {}  # of each settings class and registry: page and anchor


def on_files(files: Files, **_: Any) -> Files:
    """Read the source, which `mkdocs serve` may have seen change; note which page has what."""
    source.package.cache_clear()
    source.registry.cache_clear()
    _places.clear()
    for file in files.documentation_pages():
        for kind, path in DIRECTIVE.findall(file.content_string):
            if kind == "settings":
                _places[path] = f"{file.src_uri}#{_anchor(path)}"
                continue
            _, base, entries = source.registry(path)
            _places[path] = _places[base] = file.src_uri
            _places.update({c.path: f"{file.src_uri}#{name}" for name, c in entries.items()})
    if missing := [path for path in source.registries() if path not in _places]:
        raise PluginError(f"on no page of the configuration: {', '.join(missing)}")
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Write the tables."""
    return DIRECTIVE.sub(lambda match: KEYS + _written(*match.groups(), page), markdown)


def _written(kind: str, path: str, page: Page) -> str:
    if kind == "registry":
        return _registry(path, page)
    cls = source.find(path)
    return _section(cls.name, _anchor(path), cls, source.family(cls), page)


def _registry(path: str, page: Page) -> str:
    """Write a section a name, and one for each base whose keys several of them share."""
    entries = source.registry(path)[2]
    shared = _shared(entries)
    sections = []
    for name, cls in entries.items():
        own = [c for c in source.family(cls) if c.path not in shared or c is cls]
        sections.append(_section(f"`{name}`", name, cls, own, page))
        more = [_rest(cls, base, shared[base.path][1]) for base in cls.mro() if base.path in shared]
        if any(more):
            sections.append(f"Also {'; '.join(filter(None, more))}.")
    for title, anchor, cls in shared.values():
        if title:
            sections.append(_section(title, anchor, cls, [cls], page))
    return "\n\n".join(sections)


def _section(
    title: str, anchor: str, cls: griffe.Class, owners: Sequence[griffe.Class], page: Page
) -> str:
    text = source.text_of(cls).replace("p(·|", "p(·&#124;")
    return f"## {title} {{ #{anchor} }}\n\n{text}\n\n{_table(cls, owners, page)}"


def _shared(entries: dict[str, griffe.Class]) -> dict[str, tuple[str, str, griffe.Class]]:
    """Return title, anchor and class of each class with keys that several entries have.

    One that is an entry itself has no title, since its section is there already.
    """
    names = {cls.path: name for name, cls in entries.items()}
    found: dict[str, tuple[str, str, griffe.Class]] = {}
    for base in {c.path: c for entry in entries.values() for c in entry.mro()}.values():
        users = [name for name, e in entries.items() if base in e.mro()]
        if not any(map(source.is_key, base.members.values())):
            continue
        if base.path in names:
            found[base.path] = ("", names[base.path], base)
        elif len(users) > 1:
            listed = ", ".join(f"`{user}`" for user in users)
            title = f"Keys of {listed if len(users) < len(entries) else 'all'}"
            found[base.path] = (title, base.name.lower(), base)
    return found


def _rest(cls: griffe.Class, base: griffe.Class, anchor: str) -> str:
    """Link those keys of a base that no nearer class declares anew."""
    nearer = [cls, *cls.mro()[: cls.mro().index(base)]]
    keys = [f"`{name}`" for name, member in base.members.items() if source.is_key(member)]
    keys = [key for key in keys if not any(key.strip("`") in c.members for c in nearer)]
    return f"[{', '.join(keys)}](#{anchor})" if keys else ""


def _table(cls: griffe.Class, owners: Sequence[griffe.Class], page: Page) -> str:
    rows: dict[str, str] = {}
    bare = []
    for owner in owners:
        for name, member in owner.members.items():
            if source.is_key(member):
                described = source.description(cls, member)
                bare += [] if described else [f"{cls.path}.{name}"]
                rows[name] = _row(member, owner, described, page)
    if bare:
        raise PluginError(f"no description of {', '.join(bare)}; write one under Attributes")
    return HEAD + "\n".join(rows.values()) if rows else ""


def _row(member: griffe.Attribute, owner: griffe.Class, described: str, page: Page) -> str:
    kind = type_of(source.expression(member.annotation), owner)
    default = default_of(member, kind, owner)
    value = _linked(kind, member, page)
    meaning = described[:1].upper() + described[1:] if described[:1].isascii() else described
    cells = (f"`{member.name}`", value, default, meaning)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _linked(kind: Type, member: griffe.Attribute, page: Page) -> str:
    words = str(kind)
    bases = {base: word for word, base, _ in map(source.registry, source.registries())}
    for path in kind.classes:
        if path not in _places:
            raise PluginError(f"{path}, which {member.path} holds, is on no page")
        file, hash_, anchor = _places[path].partition("#")
        place = posixpath.relpath(file, posixpath.dirname(page.file.src_uri) or ".")
        title = bases.get(path, path.rpartition(".")[2])
        words = words.replace(f"<{path}>", f"[{title}]({place}{hash_}{anchor})")
    return words


def _anchor(path: str) -> str:
    return path.rpartition(".")[2].lower()
