"""What a reader sees of a run: one self-contained page, and a still figure of the front."""

from .front_plot import front_drawing
from .page import page
from .report_data import EvidencePlots, Insights, Report, Shown
from .svg_png import Drawing

__all__ = [
    "Drawing",
    "EvidencePlots",
    "Insights",
    "Report",
    "Shown",
    "front_drawing",
    "page",
]
