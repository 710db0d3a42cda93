"""Call a score's function and check what it returns: what is wrong becomes one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from ...spaces.errors import UserError
from ...spaces.policy.layer_scores import Parts, Scores, whole

T = TypeVar("T")


def call_score(name: str, function: Callable[[T], Scores | Parts], view: T, atoms: int) -> Parts:
    """The finite parts that a score finds; an exception inside it (a plugin's, say) is named."""
    try:
        found = function(view)
        found = found if isinstance(found, Parts) else np.asarray(found, dtype=np.float64)
    except Exception as error:
        raise UserError(
            f"score {name!r} must run on this network, got {type(error).__name__}: {error}; "
            "mend the score or leave it out"
        ) from error
    return check_scores(name, found, atoms)


def check_scores(name: str, found: Scores | Parts, atoms: int) -> Parts:
    """Refuse a score that does not give one finite number an atom, or a part of one."""
    if not isinstance(found, Parts) and found.shape != (atoms,):
        raise UserError(
            f"score {name!r} must return one number an atom, ({atoms},), got {found.shape}; "
            "sum over the layers of an atom, as network.per_atom does"
        )
    parts = found if isinstance(found, Parts) else whole(found)
    bad = int((~np.isfinite(parts.value)).sum())
    if bad:
        raise UserError(
            f"score {name!r} must be finite, got {bad} values that "
            "are not; check the network's weights and the calibration images"
        )
    return parts
