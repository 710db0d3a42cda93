"""The scores that policies rank atoms by: normalised and divided by cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..cost.cost import CostModel
from ..errors import UserError
from ..graph.channels import ChannelMap
from ..policy.layer_scores import Scores, combine_layers
from ..policy.loss_curves import curves_name
from ..policy.measurements import Measurements
from ..policy.normalization import (
    divide_by_cost,
    divide_by_fan_in,
    normalize_within_groups,
    rescale_stages,
    stage_coefficients,
    stages_of_groups,
)
from ..policy.policy import Policy, check_score
from .loss_budget import curves_for_policy, removal_order_by_loss


class PolicyScorer:
    """Compute the scores of many policies; intermediate results are cached."""

    def __init__(
        self, measurements: Measurements, channel_map: ChannelMap, cost_model: CostModel
    ) -> None:
        self._measurements = measurements
        self._channel_map, self._cost_model = channel_map, cost_model
        stages = stages_of_groups(channel_map)
        self._stage_count = int(stages.max(initial=0)) + 1
        self._stage = stages[channel_map.group_of]
        self._marginal = cost_model.marginal_costs(np.ones(channel_map.atoms, dtype=bool))
        self._cache: dict[tuple[str, str, str, float], Scores] = {}

    def scores(self, policies: Sequence[Policy]) -> Scores:
        """Return one row per policy [B, A].

        Policies with `price_at="present"` are not divided here: `current_cost` does it.
        """
        not_global = np.array([policy.allocation != "global-threshold" for policy in policies])
        scores = np.stack([self._normalised(policy) for policy in policies])
        staged = [row for row, p in enumerate(policies) if p.stages and not not_global[row]]
        if staged:
            tables = [
                stage_coefficients(policies[row].stages, self._stage_count) for row in staged
            ]
            scores[staged] = rescale_stages(scores[staged], self._stage, np.stack(tables))
        present = np.array([policy.price_at == "present" for policy in policies])
        power = np.array([policy.price_power for policy in policies]) * ~(not_global | present)
        blend = np.array([policy.price_blend for policy in policies])
        return divide_by_cost(scores, self._marginal, power=power, blend=blend)

    def _normalised(self, policy: Policy) -> Scores:
        """Return one normalised score per atom [A]; read-only."""
        if policy.allocation == "loss-budget":
            return self._scores_by_curves(policy)
        how = "rank" if policy.allocation == "uniform" else policy.normalisation
        fan_in = policy.normalisation == "fan-in"
        key = policy.score, policy.combine, f"{how} {fan_in}", policy.caution
        if key not in self._cache:
            check_score(policy.score, self._measurements.scores)
            parts = self._measurements.scores[policy.score]
            if fan_in:
                parts = divide_by_fan_in(parts, self._channel_map)
            combined = combine_layers(parts, self._channel_map, policy.combine)
            if policy.caution:
                combined = combined - policy.caution * self._errors(policy)
            self._cache[key] = normalize_within_groups(combined, self._channel_map, how)
        return self._cache[key]

    def _scores_by_curves(self, policy: Policy) -> Scores:
        """Return the removal positions by loss curves [A]; they include the stages."""
        name = curves_name(policy.score, policy.combine, policy.probe)
        key = f"curves of {name}", policy.curves, repr(policy.stages), policy.price_blend
        if key not in self._cache:
            curves = curves_for_policy(policy, self._measurements.curves)
            self._cache[key] = removal_order_by_loss(
                policy, curves, self._cost_model, self._channel_map
            )
        return self._cache[key]

    def _errors(self, policy: Policy) -> Scores:
        """Return the standard errors of the policy's score [A]."""
        errors = self._measurements.errors
        if policy.score not in errors:
            raise UserError(
                f"caution must be 0 for a score without standard errors, got {policy.caution} "
                f"with {policy.score!r}; these scores have errors: {', '.join(errors) or 'none'}"
            )
        return errors[policy.score]
