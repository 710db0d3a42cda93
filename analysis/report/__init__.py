"""What a reader sees of a run: one self-contained page, and a still figure of the front."""

from .drawing import Drawing
from .figure import front_drawing
from .page import page
from .record import EvidencePlots, Insights, Report, Shown

__all__ = [
    "Drawing",
    "EvidencePlots",
    "Insights",
    "Report",
    "Shown",
    "front_drawing",
    "page",
]
