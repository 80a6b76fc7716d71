"""The committed leaderboards become pages of the site."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from source import ROOT

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
    if not page.file.src_uri.startswith("leaderboards/"):
        return markdown.replace("../leaderboards/", "leaderboards/")
    page.meta["hide"] = ["navigation", "toc"]
    wide = "" if page.file.name == "index" else WIDE
    return wide + markdown.replace("](../docs/", "](../")
