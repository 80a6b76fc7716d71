"""Everything that runs gave as one page, and the same figures as files for a paper."""

from cembench.report.page import write_report
from cembench.report.plot import write_plots

__all__ = ["write_plots", "write_report"]
