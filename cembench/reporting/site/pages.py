"""Pages of a site: templates, filled and written with the files beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2 import Environment

from cembench.reporting import details
from cembench.reporting.page.page import SCRIPT
from cembench.reporting.page.panels import Panels
from cembench.reporting.page.templates import asset, script, templates
from cembench.reporting.site.folder import Folder
from cembench.reporting.site.names import page_name
from cembench.util.files import digest
from cembench.util.files.yaml import to_yaml
from cembench.util.version import __version__

OWN = "cembench.reporting.site"


@dataclass
class Pages:
    """What all pages of a site share.

    Attributes:
        folder: where they are written.
        images: images of each run at most that are shown.
        panels: what could not be shown.
        protocols: as YAML, by their digests.
    """

    folder: Folder
    images: int
    panels: Panels = field(default_factory=Panels)
    protocols: dict[str, str] = field(default_factory=dict)

    @cached_property
    def environment(self) -> Environment:
        """The templates."""
        made = templates(OWN)
        made.globals["page_name"] = page_name
        return made

    def write(self, name: str, template: str, **values: Any) -> None:
        """Write a page.

        Args:
            name: path of its file from the folder.
            template: its template.
            values: what the template shows.
        """
        common = {"details": details, "version": __version__, "to_yaml": self._yaml}
        common["root"] = "../" * name.count("/")
        text = self.environment.get_template(template).render(common | values)
        self.folder.write(name, text)

    def write_assets(self) -> None:
        """Write the style and the script of all pages."""
        style = asset("page.css") + asset("site.css", OWN)
        self.folder.write("assets/site.css", style)
        self.folder.write("assets/site.js", script(SCRIPT, asset("script/site.js", OWN)))

    def make(self, panel: str, work: Callable[[], Any]) -> Any:
        """Return what a part of a page is made by; None, and why is noted, where it fails."""
        return self.panels.make(panel, work)

    def _yaml(self, protocol: Mapping[str, Any]) -> str:
        """Return a protocol as YAML, each once: many runs share one."""
        key = digest(protocol)
        if key not in self.protocols:
            self.protocols[key] = to_yaml(protocol)
        return self.protocols[key]

    def parts(self, found: Mapping[int, Any]) -> dict[str, Any]:
        """Return what templates ask about charts and pictures, of which these could be made."""
        return {"part": lambda thing: found.get(id(thing)), "broken": self._broken}

    def _broken(self, thing: Any) -> str:
        name = next((str(getattr(thing, key)) for key in KEYS if hasattr(thing, key)), "")
        return self.panels.problems.get(name, "")


KEYS = ("stem", "file", "path")  # what a chart, a picture and the images of a run are named by
