"""Links of a site: `python tests/support/links.py SITE` names those that lead nowhere."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, its places, and everything that a test may ask about it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name in ("href", "src"):
                self.links.append(value or "")
            if name == "id":
                self.places.add(value or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def pages(site: Path) -> dict[Path, Page]:
    """Return all pages of a site."""
    return {file: Page(file.read_text("utf-8")) for file in sorted(site.rglob("*.html"))}


def broken(site: Path) -> list[str]:
    """Return the links of a site, its search and its index that lead nowhere or out of it."""
    known = pages(site)
    links = [(file, link) for file, page in known.items() for link in page.links]
    search = (site / "search.js").read_text("ascii").partition("=")[2].strip(" ;\n")
    links += [(site / "search.js", entry[3]) for entry in json.loads(search)]
    return [f"{file}: {link}" for file, link in links if not _leads(site, known, file, link)]


def _leads(site: Path, known: dict[Path, Page], file: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme == "data":
        return True
    if parts.scheme or parts.netloc or parts.path.startswith("/"):
        return False
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file.resolve()
    if not (target.is_file() and target.is_relative_to(site.resolve())):
        return False
    page = known.get(site / target.relative_to(site.resolve()))
    return not parts.fragment or (page is not None and parts.fragment in page.places)


if __name__ == "__main__":
    found = broken(Path(sys.argv[1]))
    print("\n".join(found) or "every link leads to a place of the site")
    sys.exit(bool(found))
