"""Report of a run: one self-contained HTML page, and a static figure of the front."""

from .front_plot import front_drawing
from .page import render_page
from .report_data import Insights, MeasurementPlots, Report, ReportedTrial
from .svg_png import Drawing

__all__ = [
    "Drawing",
    "Insights",
    "MeasurementPlots",
    "Report",
    "ReportedTrial",
    "front_drawing",
    "render_page",
]
