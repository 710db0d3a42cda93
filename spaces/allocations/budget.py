"""The mask that keeps the highest scores within an exact budget.

Prefix: units are removed in the order (score, index) until the budget is met. Fill: in reverse
order, each removed unit that still fits is added back, so that in the end no single unit can be
added. Prefixes of two budgets are nested; filled masks need not be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import FloatArray, IntArray, Mask
from ..cost.cost import CostModel
from ..errors import UserError
from ..graph.channels import ChannelMap
from .fill import fill_masks
from .units import build_units, rank_by_score


class UnreachableBudgetError(UserError):
    """A budget below the cost of the smallest allowed mask."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits on the multiply-adds and parameters of a mask; None is no limit."""

    macs: int | None = None
    params: int | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """Both limits as numbers; no limit is the largest int64."""
        huge = int(np.iinfo(np.int64).max)
        macs, params = (huge if limit is None else limit for limit in (self.macs, self.params))
        return macs, params

    def is_met_by(self, costs: IntArray) -> Mask:
        """Return which of the costs [..., 2] are within the budget."""
        return np.asarray((costs <= np.array(self.limits)).all(axis=-1))


def fill_to_budget(
    scores: FloatArray,
    cost_model: CostModel,
    channel_map: ChannelMap,
    budget: Budget,
    *,
    floor: int = 1,
    round_to: int = 1,
) -> Mask:
    """Return the mask [A] that keeps the highest scores within the budget.

    Args:
        scores: One score per atom [A].
        cost_model: The cost of masks.
        channel_map: The channel map of the network.
        budget: The limits.
        floor: The least number of atoms that each group keeps.
        round_to: Widths of layers are multiples of it, or dense.

    Raises:
        UnreachableBudgetError: If the smallest allowed mask is above the budget.
    """
    check_atom_scores(scores, channel_map)
    check_width_limits(floor, round_to)
    units = build_units(channel_map, floor, round_to)
    rank, limits = rank_by_score(scores[None], units), np.array([budget.limits])
    (mask,), reachable = fill_masks(
        rank, channel_map, cost_model, limits, single=units.are_single_atoms
    )
    if not reachable.all():
        raise unreachable_error(
            cost_model, channel_map, mask, budget, floor=floor, round_to=round_to
        )
    return np.asarray(mask)


def check_atom_scores(scores: FloatArray, channel_map: ChannelMap) -> None:
    """Raise UserError unless scores [A] or [B, A] have a number for each atom."""
    if np.shape(scores)[-1:] != (channel_map.atoms,):
        raise UserError(
            f"scores must have one number per atom, [{channel_map.atoms}], got "
            f"{list(np.shape(scores))}; compute them from this network's channel map"
        )
    bad = np.isnan(np.atleast_2d(scores)).any(axis=0).sum()
    if bad:
        raise UserError(
            f"scores must be numbers, got NaN for {bad} of {channel_map.atoms} atoms; "
            "check the weights and the loss for NaN"
        )


def check_width_limits(floor: int, round_to: int) -> None:
    """Raise UserError unless both limits are at least 1."""
    for name, value in (("min-channels", floor), ("round-to", round_to)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}; leave it out for 1")


def unreachable_error(
    cost_model: CostModel,
    channel_map: ChannelMap,
    smallest: Mask,
    budget: Budget,
    *,
    floor: int,
    round_to: int,
) -> UnreachableBudgetError:
    """Return the error that states the lowest reachable budget and what limits it."""
    parts = zip(
        ("macs", "params"),
        (budget.macs, budget.params),
        cost_model.cost_of(smallest),
        cost_model.dense,
        strict=True,
    )
    missed = [
        f"{name} cannot go below {100 * least / whole:.2f} % of dense ({least:,}), got {limit:,}"
        for name, limit, least, whole in parts
        if limit is not None and least > limit
    ]
    causes = [f"every group keeps {floor} atom{'s' * (floor > 1)}"]
    if round_to > 1:
        causes.append(f"widths are multiples of {round_to}")
    if channel_map.protected:
        channels = sum(p.channels for p in channel_map.protected)
        first = channel_map.protected[0]
        causes.append(
            f"{channels} channels are protected (the first in {first.layer}: {first.reason})"
        )
    return UnreachableBudgetError(
        f"the budget must be reachable, but {' and '.join(missed)}, because "
        f"{', '.join(causes)}; raise the target or lower min-channels, round-to or keep"
    )
