"""Scores: the importance of each atom (higher = keep), one module per score, found by name."""

from .batch_view import Seen
from .methods import (
    activation_mean,
    activation_zeros,
    bn_scale,
    fisher,
    fpgm,
    l2,
    mean_abs_weight,
    random,
    taylor,
    weight_gradient,
    weight_gradient_rank,
)
from .registry import Network, all_scores, batch_score, score

__all__ = [
    "Network",
    "Seen",
    "activation_mean",
    "activation_zeros",
    "all_scores",
    "batch_score",
    "bn_scale",
    "fisher",
    "fpgm",
    "l2",
    "mean_abs_weight",
    "random",
    "score",
    "taylor",
    "weight_gradient",
    "weight_gradient_rank",
]
