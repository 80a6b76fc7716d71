"""A browser for tests: chromium, if it is installed, and what to look for in a page."""

from __future__ import annotations

import shutil

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
