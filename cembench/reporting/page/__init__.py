"""HTML report of runs, and the same charts as files for a paper."""

from cembench.reporting.page.files import write_plots
from cembench.reporting.page.page import write_report

__all__ = ["write_plots", "write_report"]
