"""The committed leaderboards become pages; links to folders lead to their first table."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from source import ROOT

FOLDER = re.compile(r"(?<!!)\[([^]]+)\]\(((?!https?:)[^)#]*(?<!\.md)(?<!\.csv)(?<!\.png))\)")

WIDE = '<div class="wide"></div>\n\n'  # what follows scrolls rather than breaks its cells


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the tables and their pictures."""
    for path in sorted((ROOT / "leaderboards").rglob("*")):
        if path.suffix in (".md", ".csv", ".png"):
            place = path.relative_to(ROOT).as_posix()
            files.append(File(place, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead where the files are in the site."""
    if page.file.src_uri.startswith("leaderboards/"):
        page.meta["hide"] = ["navigation", "toc"]
        wide = "" if page.file.name == "index" else WIDE
        return wide + FOLDER.sub(_opened, markdown.replace("](../docs/", "](../"))
    return markdown.replace("../leaderboards/", "leaderboards/")


def _opened(link: re.Match[str]) -> str:
    """Let a link to a folder lead to its first table, or nowhere."""
    tables = sorted((ROOT / "leaderboards" / link[2]).glob("*.md"))
    return f"[{link[1]}]({link[2]}/{tables[0].name})" if tables else link[1]
