"""Site of results: static pages with their tables as data, for any web server or none."""

from cembench.reporting.site.build import write_site

__all__ = ["write_site"]
