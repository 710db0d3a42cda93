"""How a trial gets from the dense network to the small one: at once, step by step, or by gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...analysis.measure import Measuring, gather_evidence
from ...spaces.allocations.decode import Space, decode
from ...spaces.allocations.ordering import Ordering
from ...spaces.cost.cost import Price
from ...spaces.cost.target import Target, targets_between
from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.policy import Policy
from ...spaces.records.gate_history import Course
from ...trainers.pruning.gates.settings import GateSettings, GateTask
from ...trainers.pruning.gates.training import train_gates
from ...trainers.pruning.iterative import Present, Steps, prune_gradually
from ...trainers.pruning.surgery import cut
from ...trainers.training.loop import train
from ..optimizer.target_plan import derived_seed
from ..storage.trial_spec import Job
from .context import Context
from .oom_retry import checkpoint_of, refit_to_dense, score_of, settle_norms, tuning_of

STEPS, GATES = "gradual.safetensors", "gates.safetensors"  # in the folder of a trial meanwhile


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """A small network, recalibrated, and the epochs of training that its schedule has spent."""

    model: nn.Module
    keep: NDArray[np.bool_]
    epochs: float
    course: Course | None = None  # of gates


OnStep = Callable[[Present, float | None], None]  # the accuracy is there if a step needs it
Schedule = Callable[[Job, Context, OnStep | None], Pruned]


def one_shot(job: Job, context: Context, on_step: OnStep | None = None) -> Pruned:
    """Decode once, cut once."""
    keep = decode(job.policy, job.target, context.evidence, context.space)
    small = cut(context.model, context.space.channel_map, keep).to(context.machine.device)
    after_cut(small, keep, job.policy, context)
    return Pruned(small, keep, 0.0)


def after_cut(small: nn.Module, keep: NDArray[np.bool_], policy: Policy, context: Context) -> None:
    """What a policy does to a network as soon as it is cut."""
    if policy.refit:
        refit_to_dense(small, keep, context)
    settle_norms(small, context)


def gradual(job: Job, context: Context, on_step: OnStep | None = None) -> Pruned:
    """Cut in steps, each measured anew; they survive a kill in the trial's folder."""
    policy, space, machine = job.policy, context.space, context.machine
    between = policy.step_share * context.effort.epochs / policy.steps
    targets = targets_between(job.target, space.price.dense, policy.steps)

    def choose(model: nn.Module, channel_map: ChannelMap, target: Target) -> NDArray[np.bool_]:
        evidence = context.evidence
        if channel_map.atoms < space.channel_map.atoms:
            data, limits = context.data, context.limits
            measuring = Measuring(model, channel_map, data, job.seed, limits=limits)
            evidence = gather_evidence([policy], measuring)
        return decode(policy, target, evidence, present_space(space, channel_map))

    def settle(present: Present) -> None:
        after_cut(present.model, present.keep, policy, context)
        if between:
            tuning = tuning_of(policy, between, context)
            seed = derived_seed(job.seed, present.step - 1)
            train(
                present.model,
                context.data,
                tuning,
                seed=seed,
                teacher=context.teacher,
                machine=machine,
            )

    def accept(present: Present) -> bool:
        accuracy = None
        if job.min_accuracy is not None:
            accuracy = score_of(present.model, context).accuracy
        if on_step is not None:
            on_step(present, accuracy)
        return accuracy is None or job.min_accuracy is None or accuracy >= job.min_accuracy

    present = prune_gradually(
        context.model,
        space.channel_map,
        targets,
        Steps(choose, settle, accept),
        checkpoint=checkpoint_of(job, context, STEPS),
        identity=job.identity,
    )
    small = present.model if present.step else cut(context.model, space.channel_map, present.keep)
    return Pruned(small.to(machine.device), present.keep, present.step * between)


def holistic(job: Job, context: Context, on_step: OnStep | None = None) -> Pruned:
    """Train gates and weights together; the policy's score orders the gates at the start."""
    policy, space, data = job.policy, context.space, context.data
    (scores,) = Ordering(context.evidence, space.channel_map, space.price).scores([policy])
    epochs = policy.gate_share * context.effort.epochs
    tuning = tuning_of(policy, epochs, context)
    settings = GateSettings(
        tuning=tuning,
        variant=policy.gate_variant,
        learning_rate=policy.gate_learning_rate,
        weight=policy.gate_weight,
        approach=policy.gate_approach,
        floor=max(policy.floor, space.min_channels),
    )
    gated = train_gates(
        context.model,
        data,
        GateTask(space, job.target, settings, scores, job.seed),
        teacher=context.teacher,
        machine=context.machine,
        checkpoint=checkpoint_of(job, context, GATES),
    )
    settle_norms(gated.model, context)
    return Pruned(gated.model, gated.keep, epochs, gated.course())


def present_space(space: Space, channel_map: ChannelMap) -> Space:
    """The space of a network that is cut already, under the same limits."""
    return replace(space, channel_map=channel_map, price=Price(channel_map))


SCHEDULES: dict[str, Schedule] = {
    "one-shot": one_shot,
    "gradual": gradual,
    "holistic": holistic,
}
