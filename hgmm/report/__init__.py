"""What is made of the record of a run, for people to look at."""

from __future__ import annotations

from hgmm.report.plots import draw_plots, plots_installed

__all__ = ["draw_plots", "plots_installed"]
