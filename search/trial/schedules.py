"""Schedules: prune the dense model in one shot, gradually, or by training gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...analysis.measure import MeasurementContext, measure_for_policies
from ...spaces.allocations.decode import PruningSpace, decode_policy
from ...spaces.allocations.ordering import PolicyScorer
from ...spaces.cost.cost import CostModel
from ...spaces.cost.target import Target, intermediate_targets
from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.policy import Policy
from ...spaces.records.gate_history import GateHistory
from ...trainers.pruning.gates.settings import GateSettings, GateTrainingSpec
from ...trainers.pruning.gates.trainer import train_gates
from ...trainers.pruning.iterative import PrunedState, StepCallbacks, prune_iteratively
from ...trainers.pruning.surgery import prune_network
from ...trainers.training.loop import train_model
from ..optimizer.plan import derive_seed
from ..storage.trial_spec import TrialSpec
from .context import TrialContext
from .oom_retry import (
    checkpoint_path,
    fine_tune_settings,
    recalibrate_norms,
    refit_to_dense,
    validation_metrics,
)

GRADUAL_CHECKPOINT = "gradual.safetensors"  # in the folder of a trial, until it ends
GATES_CHECKPOINT = "gates.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class PrunedModel:
    """A pruned, recalibrated model and the epochs of training that its schedule has used."""

    model: nn.Module
    keep: NDArray[np.bool_]
    epochs: float
    gate_history: GateHistory | None = None  # of the schedule holistic


OnStep = Callable[[PrunedState, float | None], None]  # accuracy: None if no minimum is set
Schedule = Callable[[TrialSpec, TrialContext, OnStep | None], PrunedModel]


def one_shot(spec: TrialSpec, context: TrialContext, on_step: OnStep | None = None) -> PrunedModel:
    """Decode the policy once and prune once."""
    keep = decode_policy(spec.policy, spec.target, context.measurements, context.space)
    small = prune_network(context.model, context.space.channel_map, keep).to(
        context.machine.device
    )
    refit_and_recalibrate(small, keep, spec.policy, context)
    return PrunedModel(small, keep, 0.0)


def refit_and_recalibrate(
    small: nn.Module, keep: NDArray[np.bool_], policy: Policy, context: TrialContext
) -> None:
    """Refit the pruned model if the policy says so, then recalibrate its batch norms."""
    if policy.refit:
        refit_to_dense(small, keep, context)
    recalibrate_norms(small, context)


def gradual(spec: TrialSpec, context: TrialContext, on_step: OnStep | None = None) -> PrunedModel:
    """Prune in steps, with new measurements before each; a checkpoint survives a kill."""
    policy, space, device_config = spec.policy, context.space, context.machine
    epochs_per_step = policy.step_share * context.budget.epochs / policy.steps
    targets = intermediate_targets(spec.target, space.cost_model.dense, policy.steps)

    def choose(model: nn.Module, channel_map: ChannelMap, target: Target) -> NDArray[np.bool_]:
        measurements = context.measurements
        if channel_map.atoms < space.channel_map.atoms:
            data, limits = context.data, context.measurement_limits
            on_pruned = MeasurementContext(model, channel_map, data, spec.seed, limits=limits)
            measurements = measure_for_policies([policy], on_pruned)
        return decode_policy(policy, target, measurements, space_of_pruned(space, channel_map))

    def settle(state: PrunedState) -> None:
        refit_and_recalibrate(state.model, state.keep, policy, context)
        if epochs_per_step:
            train_model(
                state.model,
                context.data,
                fine_tune_settings(policy, epochs_per_step, context),
                seed=derive_seed(spec.seed, state.step - 1),
                teacher=context.teacher,
                machine=device_config,
            )

    def accept(state: PrunedState) -> bool:
        accuracy = None
        if spec.min_accuracy is not None:
            accuracy = validation_metrics(state.model, context).accuracy
        if on_step is not None:
            on_step(state, accuracy)
        return accuracy is None or spec.min_accuracy is None or accuracy >= spec.min_accuracy

    state = prune_iteratively(
        context.model,
        space.channel_map,
        targets,
        StepCallbacks(choose, settle, accept),
        checkpoint=checkpoint_path(spec, context, GRADUAL_CHECKPOINT),
        identity=spec.network_key,
    )
    small = state.model
    if not state.step:
        small = prune_network(context.model, space.channel_map, state.keep)
    return PrunedModel(small.to(device_config.device), state.keep, state.step * epochs_per_step)


def holistic(spec: TrialSpec, context: TrialContext, on_step: OnStep | None = None) -> PrunedModel:
    """Train gates and weights together; the policy's score sets the initial order of the gates."""
    policy, space, data = spec.policy, context.space, context.data
    (scores,) = PolicyScorer(context.measurements, space.channel_map, space.cost_model).scores(
        [policy]
    )
    epochs = policy.gate_share * context.budget.epochs
    settings = GateSettings(
        tuning=fine_tune_settings(policy, epochs, context),
        variant=policy.gate_variant,
        learning_rate=policy.gate_learning_rate,
        weight=policy.gate_weight,
        approach=policy.gate_approach,
        floor=max(policy.floor, space.min_channels),
    )
    gated = train_gates(
        context.model,
        data,
        GateTrainingSpec(space, spec.target, settings, scores, spec.seed),
        teacher=context.teacher,
        machine=context.machine,
        checkpoint=checkpoint_path(spec, context, GATES_CHECKPOINT),
    )
    recalibrate_norms(gated.model, context)
    return PrunedModel(gated.model, gated.keep, epochs, gated.gate_history())


def space_of_pruned(space: PruningSpace, channel_map: ChannelMap) -> PruningSpace:
    """Return the pruning space of a pruned model, with the same limits."""
    return replace(space, channel_map=channel_map, cost_model=CostModel(channel_map))


SCHEDULES: dict[str, Schedule] = {
    "one-shot": one_shot,
    "gradual": gradual,
    "holistic": holistic,
}
