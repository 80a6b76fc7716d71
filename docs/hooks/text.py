"""Formulas as MathML, made here so that no page loads a script; arXiv numbers as links.

The build fails on a page that shows `--8<--` rather than the file it should include.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

CODE = r"^ *```.*?^ *```|`[^`\n]+`"
FORMULA = r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$"
EITHER = re.compile(f"{CODE}|{FORMULA}", re.S | re.M)
ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})(?![^<]*</a>)")
TAG = re.compile(r"<[^>]+>")
SNIPPET = re.compile(r"--\s*8\s*&lt;\s*--")
WHOLE = re.compile(r'--8<-- "(\w+\.md)"\s*')  # a page that is a file of the top folder
_formulas: list[str] = []  # of the page


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a word in the place of each formula, `$inline$` or `$$block$$`, outside of code."""
    _formulas.clear()
    return EITHER.sub(_keep, _whole(markdown))


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Put MathML in the place of the words, and links around arXiv numbers."""
    if SNIPPET.search(TAG.sub("", html)):
        raise PluginError(f"{page.file.src_uri}: a file was not included; write --8<-- as it is")
    for number, formula in enumerate(_formulas):
        html = html.replace(f"FORMULA{number}END", formula)
    return ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', html)


def _whole(markdown: str) -> str:
    """Return the file that a page consists of, with its links as seen from `docs`."""
    if (match := WHOLE.fullmatch(markdown)) is None:
        return markdown
    text = Path(match[1]).read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](SECURITY.md", "](security.md")


def _keep(match: re.Match[str]) -> str:
    text = match["block"] or match["inline"]
    if text is None:
        return match[0]
    _formulas.append(convert(text, display="block" if match["block"] else "inline"))
    return f"FORMULA{len(_formulas) - 1}END"
