"""Call a score's function and check what it returns: what is wrong becomes one line."""

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
    """The finite parts that a score finds; an exception inside it (a plugin's, say) is named."""
    try:
        found = function(view)
        found = found if isinstance(found, LayerScores) else np.asarray(found, dtype=np.float64)
    except Exception as error:
        raise UserError(
            f"score {name!r} must run on this network, got {type(error).__name__}: {error}; "
            "mend the score or leave it out"
        ) from error
    return check_score_output(name, found, atoms)


def check_score_output(name: str, found: Scores | LayerScores, atoms: int) -> LayerScores:
    """Refuse a score that does not give one finite number an atom, or a part of one."""
    if not isinstance(found, LayerScores) and found.shape != (atoms,):
        raise UserError(
            f"score {name!r} must return one number an atom, ({atoms},), got {found.shape}; "
            "sum over the layers of an atom, as network.per_atom does"
        )
    parts = found if isinstance(found, LayerScores) else as_layer_scores(found)
    bad = int((~np.isfinite(parts.value)).sum())
    if bad:
        raise UserError(
            f"score {name!r} must be finite, got {bad} values that "
            "are not; check the network's weights and the calibration images"
        )
    return parts
