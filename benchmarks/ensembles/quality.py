"""What masks ranked by ensembles are worth at equal work, beside other scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.ensembles.bench import FOUND, WHOLE, Bench
from paretoprune.analysis.mask_ensembles import EnsembleSettings
from paretoprune.analysis.scores.measure import load_or_measure_scores
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, Policy

KNOWN = {  # no ensembles
    "taylor / price": Policy("taylor", price_power=1.0, price_at="present", floor=2),
    "mean-abs-weight / price": Policy("mean-abs-weight", price_power=1.0, floor=2),
    "mean-abs-weight": Policy("mean-abs-weight", floor=2),
    **CONTROL_POLICIES,
}
SEEDED = ("taylor / price", "random")  # of them; the others are the same under every seed
FACTORS = (4, 16)  # of the work, for one mask a set; the quality cells have 1
SET = 512  # images under one mask
MAIN = {
    "sample, prior": WHOLE,
    "sample": replace(WHOLE, prior="none"),
    "sample, keep 0.98, square": replace(WHOLE, keep=0.98, variant="square"),
    "batch": replace(WHOLE, per="batch", transform="plain", prior="none", images=SET),
    "gradient mean": replace(WHOLE, per="gradient"),
    "gradient square, batch norms": replace(
        WHOLE, per="gradient", variant="square", norms="batch"
    ),
}
VARIANTS = {
    "sample, antithetic": replace(WHOLE, draw="antithetic"),
    "sample, stratified": replace(WHOLE, draw="stratified"),
    "sample, batch norms": replace(WHOLE, norms="batch"),
    "sample, keep 0.98": replace(WHOLE, keep=0.98),
    "sample, keep 0.98, absolute": replace(WHOLE, keep=0.98, variant="absolute"),
    "batch, accuracy": replace(WHOLE, per="batch", measure="accuracy", prior="none", images=SET),
    "gradient absolute": replace(WHOLE, per="gradient", variant="absolute"),
    "gradient square": replace(WHOLE, per="gradient", variant="square"),
    "gradient square, plain": replace(WHOLE, per="gradient", variant="square", transform="plain"),
    "gradient square, keep 0.98": replace(WHOLE, per="gradient", variant="square", keep=0.98),
    "gradient joined": replace(WHOLE, per="gradient", joined=True),
}


def quality_cell(bench: Bench, settings: EnsembleSettings, seed: int) -> dict[str, Any]:
    """One ensemble at all targets, divided by price."""
    evidence, about = bench.scored(bench.limited(settings), seed)
    return {**about, **bench.accuracies(FOUND, evidence)}


def known_cell(bench: Bench, policy: Policy, seed: int) -> dict[str, Any]:
    """A score that is no ensemble, or a control."""
    scene, names = bench.scene, [policy.score]
    evidence = load_or_measure_scores(
        scene.model, scene.space.channel_map, scene.data, folder=None, seed=seed, names=names
    )
    return bench.accuracies(policy, evidence)


def images_cell(bench: Bench, factor: int, seed: int) -> dict[str, Any]:
    """One mask a set with a multiple of the work."""
    work = bench.work * factor
    evidence, about = bench.scored(bench.limited(MAIN["batch"], work), seed)
    return {**about, **bench.accuracies(FOUND, evidence, (0.5,))}
