"""Formulas as MathML, made here so that no page loads a script; arXiv numbers as links."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.pages import Page

FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$", re.S)
ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})(?![^<]*</a>)")
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.S | re.M)
_formulas: dict[str, str] = {}


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put a word in the place of each formula, `$inline$` or `$$block$$`, outside of code."""
    _formulas.clear()
    parts, at = [], 0
    for code in CODE.finditer(markdown):
        parts += [FORMULA.sub(_keep, markdown[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, FORMULA.sub(_keep, markdown[at:])])


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Put MathML in the place of the words, and links around arXiv numbers."""
    for word, formula in _formulas.items():
        html = html.replace(word, formula)
    return ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', html)


def _keep(match: re.Match[str]) -> str:
    word = f"FORMULA{len(_formulas)}END"
    display = "inline" if match["block"] is None else "block"
    _formulas[word] = convert(match["block"] or match["inline"], display=display)
    return word
