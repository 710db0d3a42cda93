"""Scores: one module a score, found by name. A score says what each atom is worth, higher = keep."""

from . import bn_scale, l2, mean_abs_weight, random, taylor
from .registry import Network, all_scores, score

__all__ = [
    "Network",
    "all_scores",
    "bn_scale",
    "l2",
    "mean_abs_weight",
    "random",
    "score",
    "taylor",
]
