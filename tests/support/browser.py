"""A browser for tests: chromium, if it is installed, and what to look for in a page."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET += ["--disable-component-update"]

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

CLIPPED = """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
    const box = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text")].filter((text) => {
        const at = text.getBoundingClientRect();
        return at.width > 0 && (at.top < box.top || at.bottom > box.bottom || at.left < box.left
            || at.right > box.right);
    }).map((text) => text.textContent);
})"""

# What goes beyond the window, but for what lies in a box that scrolls and says so.
OUTSIDE = """() => [...document.querySelectorAll("body *")].filter((one) => {
    const at = one.getBoundingClientRect();
    if (!at.width || !at.height || (at.left > -1 && at.right < innerWidth + 1)) return false;
    const box = one.parentElement.closest(".scroll");
    return !box?.parentElement.classList.contains("more");
}).map((one) => one.outerHTML.slice(0, 120))"""

# How opaque the corner of a picture is.
CORNER = """async (picture) => {
    await picture.decode();
    const pen = new OffscreenCanvas(1, 1).getContext("2d");
    pen.drawImage(picture, 0, 0);
    return pen.getImageData(0, 0, 1, 1).data[3];
}"""

# What is drawn behind text only in part, which axe-core cannot measure contrast on.
PLAIN = "*::before, *::after { content: none !important } td { background-image: none !important }"
BARRED = """async () => {
    const shown = document.querySelector("dialog[open]:last-of-type") ?? document;
    const less = { preload: false, elementRef: false, selectors: false };
    const found = await axe.run(shown, { ...less, resultTypes: ["violations"] });
    return found.violations.flatMap(({ impact, help, nodes }) =>
        nodes.map((one) => `${impact}: ${help}: ${one.html.slice(0, 160)}`));
}"""


def barriers(tab: Any) -> list[str]:
    """Return what bars people from using a page as it stands, or its open dialog: axe-core's view.

    Each line says how serious it is, what is wrong, and with which element.
    """
    style = tab.add_style_tag(content=PLAIN)
    if not tab.evaluate("'axe' in window"):
        tab.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found: list[str] = tab.evaluate(BARRED)
    style.evaluate("style => style.remove()")
    return found


def until(place: Any, true: str, tries: int = 200) -> None:
    """Wait until an expression is true of a tab or an element of it.

    The page's policy forbids playwright's own way to.
    """
    while not place.evaluate(true):
        tries -= 1
        assert tries, f"never came true: {true}"
        getattr(place, "page", place).wait_for_timeout(25)


def location(tab: Any) -> str:
    """Return the address of a page as it is now; playwright's own is told of it later."""
    found: str = tab.evaluate("location.href")
    return found


FORGET = "() => { try { localStorage.clear() } catch { /* such a page keeps nothing */ } }"


class Tabs:
    """Tabs of a browser; one that a test is done with is for the next, as a new one takes long."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.free: dict[str, list[Any]] = defaultdict(list)

    @contextmanager
    def lent(
        self,
        allowed: Callable[[str], bool] | None = None,
        width: int = 1280,
        height: int = 800,
        scheme: str = "light",
        **options: Any,
    ) -> Iterator[Any]:
        """Yield an empty tab; at the end of it nothing may have gone wrong, nor left these pages.

        Without `allowed` nobody watches it.
        """
        free = self.free[repr(sorted(options.items()))]
        tab = free.pop() if free else self.browser.new_context(**options).new_page()
        tab.set_viewport_size({"width": width, "height": height})
        tab.emulate_media(media="screen", color_scheme=scheme)
        wrong: list[str] = []
        listeners = _listeners(wrong, allowed) if allowed is not None else {}
        for event, listener in listeners.items():
            tab.on(event, listener)
        yield tab
        tab.mouse.move(0, 0)
        tab.evaluate(FORGET)
        for event, listener in listeners.items():
            tab.remove_listener(event, listener)
        tab.goto("about:blank")
        free.append(tab)
        assert wrong == []


def _listeners(wrong: list[str], allowed: Callable[[str], bool]) -> dict[str, Any]:
    """Return what to call at which event, to list what should not happen."""

    def asked(dialog: Any) -> None:
        wrong.append("a script ran")
        dialog.dismiss()

    return {
        "console": lambda message: wrong.append(f"console: {message.text}"),
        "pageerror": lambda error: wrong.append(f"error: {error}"),
        "dialog": asked,
        "request": lambda request: allowed(request.url) or wrong.append(request.url),
    }
