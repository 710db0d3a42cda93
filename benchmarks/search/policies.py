"""Contenders that are policies of ours without a search: each preset alone, and random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.search.bench import Bench
from benchmarks.search.rules import SIZES, sizes
from benchmarks.search.worker import PolicyTask
from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.measurement_budget import (
    DEFAULT_ENSEMBLE_IMAGES,
    measurement_limits,
)
from paretoprune.search.driver.open_store import policy_space_for
from paretoprune.search.optimizer.plan import make_plan
from paretoprune.search.optimizer.search_space import PolicySpace
from paretoprune.search.optimizer.suggesters import RandomSuggester
from paretoprune.search.storage.trial_spec import TrialSpec
from paretoprune.search.trial.budget import TrialBudget
from paretoprune.search.trial.context import TrialContext
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.channels import channel_map_digest
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import Policy
from paretoprune.spaces.records.recipe import ModelSource

MOST_TRIALS = 2000  # more than any budget here affords
SETTINGS = SearchSettings(target_flops=str(SIZES[0]), ensemble_images=DEFAULT_ENSEMBLE_IMAGES)


def alone(policy: Policy) -> Callable[[Bench], dict[str, Any]]:
    """One policy on the grid of sizes."""

    def contender(bench: Bench) -> dict[str, Any]:
        context = context_of(bench, [policy])
        for size in sizes():
            if not bench.has_room():
                break
            number = bench.offered
            job = TrialSpec(number, policy, Target(size), bench.tuning_seed, number=number)
            bench.offer(f"{size}", PolicyTask(job), context)
        return {"policy": policy.to_json()}

    return contender


def at_random(bench: Bench) -> dict[str, Any]:
    """Policies from our space at our search's targets, drawn blindly."""
    space = space_of(bench)
    context = context_of(bench, space.policies_to_measure)
    drawn = RandomSuggester(np.random.default_rng(bench.seed))
    for slot in make_plan(MOST_TRIALS, Target(SIZES[0]), context.space):
        if not bench.has_room():
            break
        policy = space.sample(drawn)
        job = TrialSpec(slot.index, policy, slot.target, bench.tuning_seed, number=slot.index)
        bench.offer(policy.score, PolicyTask(job), context)
    return {}


def space_of(bench: Bench) -> PolicySpace:
    """The policy space of a search of ours with its default settings."""
    return policy_space_for(SETTINGS, bench.scene.space)


def evidence_of(bench: Bench, policies: Iterable[Policy]) -> Measurements:
    """What these policies read, measured here as far as a search would."""
    model, channel_map = bench.scene.model, bench.scene.space.channel_map
    on = MeasurementContext(
        model, channel_map, bench.scene.data, bench.seed, limits=measurement_limits(SETTINGS)
    )
    with bench.scoring():
        return measure_for_policies(policies, on)


def context_of(bench: Bench, policies: Iterable[Policy]) -> TrialContext:
    """What trials need; their evidence is measured at the contender's expense."""
    scene = bench.scene
    channel_map, shape = scene.space.channel_map, tuple(scene.data.input_shape)
    evidence = evidence_of(bench, policies)
    return TrialContext(
        model=scene.model,
        data=scene.data,
        space=scene.space,
        measurements=evidence,
        source=ModelSource(scene.architecture, scene.data.classes, shape),
        map_sha256=channel_map_digest(channel_map),
        root=bench.folder,
        budget=TrialBudget(bench.rules.epochs),
        machine=scene.machine,
        teacher=scene.teacher,
    )
