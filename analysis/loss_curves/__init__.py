"""Loss curves: the rise of the loss as more atoms of one group are removed."""

from .measure import add_loss_curves, measure_curves
from .prober import LossProber

__all__ = ["LossProber", "add_loss_curves", "measure_curves"]
