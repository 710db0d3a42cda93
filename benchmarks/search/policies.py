"""Contenders that are policies of ours without a search: each preset alone, and random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.search.bench import Bench
from benchmarks.search.rules import SIZES, sizes
from benchmarks.search.worker import PolicyTask
from paretoprune.analysis.measure import Measuring, gather_evidence
from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.calibration_budget import ENSEMBLE_IMAGES, limits_of
from paretoprune.search.driver.initial_trials import policy_space_of
from paretoprune.search.optimizer.search_space import PolicySpace
from paretoprune.search.optimizer.suggesters import Drawn
from paretoprune.search.optimizer.target_plan import make_plan
from paretoprune.search.storage.trial_spec import Job
from paretoprune.search.trial.budget import Effort
from paretoprune.search.trial.context import Context
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.channels import map_digest
from paretoprune.spaces.policy.measurements import Evidence
from paretoprune.spaces.policy.policy import Policy
from paretoprune.spaces.records.recipe import Source

MOST_TRIALS = 2000  # more than any budget here affords
SETTINGS = SearchSettings(target_flops=str(SIZES[0]), ensemble_images=ENSEMBLE_IMAGES)


def alone(policy: Policy) -> Callable[[Bench], dict[str, Any]]:
    """One policy on the grid of sizes."""

    def contender(bench: Bench) -> dict[str, Any]:
        context = context_of(bench, [policy])
        for size in sizes():
            if not bench.has_room():
                break
            number = bench.offered
            job = Job(number, policy, Target(size), bench.tuning_seed, number=number)
            bench.offer(f"{size}", PolicyTask(job), context)
        return {"policy": policy.to_json()}

    return contender


def at_random(bench: Bench) -> dict[str, Any]:
    """Policies from our space at our search's targets, drawn blindly."""
    space = space_of(bench)
    context = context_of(bench, space.read)
    drawn = Drawn(np.random.default_rng(bench.seed))
    for slot in make_plan(MOST_TRIALS, Target(SIZES[0]), context.space):
        if not bench.has_room():
            break
        policy = space.sample(drawn)
        job = Job(slot.index, policy, slot.target, bench.tuning_seed, number=slot.index)
        bench.offer(policy.score, PolicyTask(job), context)
    return {}


def space_of(bench: Bench) -> PolicySpace:
    """The policy space of a search of ours with its default settings."""
    return policy_space_of(SETTINGS, bench.scene.space)


def evidence_of(bench: Bench, policies: Iterable[Policy]) -> Evidence:
    """What these policies read, measured here as far as a search would."""
    model, channel_map = bench.scene.model, bench.scene.space.channel_map
    on = Measuring(model, channel_map, bench.scene.data, bench.seed, limits=limits_of(SETTINGS))
    with bench.scoring():
        return gather_evidence(policies, on)


def context_of(bench: Bench, policies: Iterable[Policy]) -> Context:
    """What trials need; their evidence is measured at the contender's expense."""
    scene = bench.scene
    channel_map, shape = scene.space.channel_map, tuple(scene.data.input_shape)
    evidence = evidence_of(bench, policies)
    return Context(
        model=scene.model,
        data=scene.data,
        space=scene.space,
        evidence=evidence,
        source=Source(scene.architecture, scene.data.classes, shape),
        map_sha256=map_digest(channel_map),
        root=bench.folder,
        effort=Effort(bench.rules.epochs),
        machine=scene.machine,
        teacher=scene.teacher,
    )
