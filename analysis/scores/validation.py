"""Call a score's function and validate its result; failures become one-line user errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from ...spaces.errors import UserError
from ...spaces.policy.layer_scores import LayerScores, Scores, as_layer_scores

T = TypeVar("T")


def call_score(
    name: str, function: Callable[[T], Scores | LayerScores], view: T, atoms: int
) -> LayerScores:
    """Return the validated scores; an exception in the function becomes a UserError."""
    try:
        found = function(view)
        found = found if isinstance(found, LayerScores) else np.asarray(found, dtype=np.float64)
    except Exception as error:
        raise UserError(
            f"score {name!r} must run on this network, got {type(error).__name__}: {error}; "
            "fix the score or leave it out"
        ) from error
    return check_score_output(name, found, atoms)


def check_score_output(name: str, found: Scores | LayerScores, atoms: int) -> LayerScores:
    """Raise UserError unless the score has finite values of the right shape."""
    if not isinstance(found, LayerScores) and found.shape != (atoms,):
        raise UserError(
            f"score {name!r} must return one number per atom, ({atoms},), got {found.shape}; "
            "sum over the layers of an atom, or return the result of network.per_atom"
        )
    parts = found if isinstance(found, LayerScores) else as_layer_scores(found)
    bad = int((~np.isfinite(parts.value)).sum())
    if bad:
        raise UserError(
            f"score {name!r} must be finite, got {bad} NaN or infinite "
            "values; check the network's weights and the calibration images"
        )
    return parts
