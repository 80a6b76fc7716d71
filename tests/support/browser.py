"""A browser for tests: chromium, if it is installed, and what to look for in a page."""

from __future__ import annotations

import shutil
from functools import cache
from importlib.resources import files
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET += ["--disable-component-update"]

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

CLIPPED = """() => [...document.querySelectorAll("main svg")].flatMap((svg) => {
    const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter((text) => {
        const at = text.getBoundingClientRect();
        return at.top < box.top || at.bottom > box.bottom || at.left < box.left
            || at.right > box.right;
    }).map((text) => text.textContent);
})"""

# What is drawn behind text only in part, which axe-core cannot measure contrast on.
PLAIN = "*::before, *::after { content: none !important } td { background-image: none !important }"
BARRED = """async () => (await axe.run({ preload: false })).violations.flatMap((found) =>
    found.nodes.map((one) => `${found.impact}: ${found.help}: ${one.html.slice(0, 160)}`))"""


def barriers(tab: Any) -> list[str]:
    """Return what axe-core finds on a page, as it stands, that bars people from using it."""
    style = tab.add_style_tag(content=PLAIN)
    tab.evaluate(_axe())
    found: list[str] = tab.evaluate(BARRED)
    style.evaluate("style => style.remove()")
    return found


@cache
def _axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
