"""Linear filter ensembles: what their scores are worth at equal work, how far they can be trusted.

quality   accuracy without fine-tune, raw and recalibrated, of masks ranked by every kind of
          ensemble, by Taylor and by mean |w|; controls: uniform and random. Work is counted in
          forwarded images, a backward as two of them.
images    how many images one mask a set takes to reach what one mask a sample gives
range     correlation of predicted and measured loss changes, at 5 to 60 % of the atoms removed
scaling   seconds and memory against the number of atoms; predictions a second

python -m benchmarks.ensembles [--model resnet20] [--sections quality images range scaling]
    [--work 98304] [--seeds 3] [--validation-images N] [--max-seconds S] [--out FILE]
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Cell, fill
from benchmarks.cifar_jpeg import whole
from benchmarks.scene import Scene, baseline, published_resnet20, scene_of, without_tuning
from paretoprune.analysis.ensembles import (
    Ensemble,
    EnsembleSettings,
    measure_ensemble,
    surrogate_of,
    with_ensemble,
)
from paretoprune.analysis.ensembles.campaign import begin
from paretoprune.analysis.ensembles.masks import draw_masks
from paretoprune.analysis.ensembles.probe import Probe
from paretoprune.analysis.evidence import measure_evidence
from paretoprune.spaces.decode import decode
from paretoprune.spaces.evidence import Evidence
from paretoprune.spaces.policy import CONTROLS, Policy
from paretoprune.spaces.target import Target
from paretoprune.spaces.trace import trace_channels
from paretoprune.spaces.working_copy import working_copy
from paretoprune.trainers.baseline import file_hash
from paretoprune.trainers.batches import draw, take
from paretoprune.trainers.machine import Machine, detect_machine
from paretoprune.trainers.models import build_model
from paretoprune.trainers.split import Data, Split

TARGETS = (0.6, 0.5, 0.4)
POWERS = (0.0, 1.0)  # of the price that divides the scores
BACKWARD = 3  # forwards that a forward with a backward is worth
SET = 512  # images under one mask
SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)
WHOLE = EnsembleSettings(agreement=1.0)  # to the limit, so that work is equal
METHODS = {
    "sample, prior": WHOLE,
    "sample": replace(WHOLE, prior="none"),
    "sample, antithetic": replace(WHOLE, draw="antithetic"),
    "sample, stratified": replace(WHOLE, draw="stratified"),
    "sample, batch norms": replace(WHOLE, norms="batch"),
    "sample, keep 0.98": replace(WHOLE, keep=0.98),
    "sample, keep 0.98, absolute": replace(WHOLE, keep=0.98, variant="absolute"),
    "sample, keep 0.98, square": replace(WHOLE, keep=0.98, variant="square"),
    "batch": replace(WHOLE, per="batch", transform="plain", prior="none", images=SET),
    "batch, accuracy": replace(WHOLE, per="batch", measure="accuracy", prior="none", images=SET),
    "gradient mean": replace(WHOLE, per="gradient"),
    "gradient absolute": replace(WHOLE, per="gradient", variant="absolute"),
    "gradient square": replace(WHOLE, per="gradient", variant="square"),
    "gradient square, plain": replace(WHOLE, per="gradient", variant="square", transform="plain"),
    "gradient square, batch norms": replace(
        WHOLE, per="gradient", variant="square", norms="batch"
    ),
    "gradient square, keep 0.98": replace(WHOLE, per="gradient", variant="square", keep=0.98),
    "gradient joined": replace(WHOLE, per="gradient", joined=True),
}
RANGES = {
    "keep 0.95": replace(WHOLE, keep=0.95),
    "keep 0.9": WHOLE,
    "keep 0.7": replace(WHOLE, keep=0.7),
    "keep 0.7 +- 0.25": replace(WHOLE, keep=0.7, spread=0.25),
    "keep 0.7 +- 0.25, curvature": replace(WHOLE, keep=0.7, spread=0.25, curvature=True),
}
SCALED = {
    "resnet20": (3, 32, 32),
    "resnet56": (3, 32, 32),
    "resnet110": (3, 32, 32),
    "torchvision:resnet50": (3, 64, 64),
}


@dataclass(frozen=True)
class Bench:
    """What is pruned, and how much work every method gets."""

    scene: Scene
    work: int

    def limited(self, settings: EnsembleSettings, work: int | None = None) -> EnsembleSettings:
        """As many masks as the work allows."""
        cost = {"sample": 1, "gradient": BACKWARD, "batch": settings.images}[settings.per]
        return replace(settings, samples=max((work or self.work) // cost, 16))

    def ensemble(self, settings: EnsembleSettings, seed: int) -> Ensemble:
        """Measure anew: the benchmark times it."""
        scene = self.scene
        return measure_ensemble(
            scene.model,
            scene.space.channel_map,
            scene.data,
            settings,
            folder=None,
            seed=seed,
            machine=scene.machine,
        )

    def scored(self, settings: EnsembleSettings, seed: int) -> tuple[Evidence, dict[str, Any]]:
        """Evidence with one ensemble in it, and what it took."""
        found = self.ensemble(settings, seed)
        last, effort = found.checks[-1], found.effort
        about = {
            "samples": effort.samples,
            "forwards": effort.forwards,
            "backwards": effort.backwards,
            "measuring_seconds": round(effort.seconds, 1),
            "held_out_r2": round(last.held_out_r2, 4),
            "agreement": round(last.agreement, 4),
        }
        return with_ensemble(Evidence("", {}), "found", found), about

    def accuracies(
        self, policy: Policy, evidence: Evidence, targets: tuple[float, ...] = TARGETS
    ) -> dict[str, Any]:
        """Raw and recalibrated, at every target."""
        found = {}
        for target in targets:
            keep = decode(policy, Target(target), evidence, self.scene.space)
            found[str(target)] = without_tuning(self.scene, keep, raw=True)
        return found


def quality_cell(bench: Bench, settings: EnsembleSettings, seed: int) -> dict[str, Any]:
    """One ensemble at all targets, divided by price or not."""
    evidence, about = bench.scored(bench.limited(settings), seed)
    for power in POWERS:
        policy = Policy("found", price_power=power, floor=2)
        about[f"price power {power:g}"] = bench.accuracies(policy, evidence)
    return about


def known_cell(bench: Bench, policies: dict[str, Policy], seed: int) -> dict[str, Any]:
    """Scores that are no ensembles, and controls."""
    scene = bench.scene
    names = sorted({policy.score for policy in policies.values()})
    evidence = measure_evidence(
        scene.model, scene.space.channel_map, scene.data, folder=None, seed=seed, names=names
    )
    return {name: bench.accuracies(policy, evidence) for name, policy in policies.items()}


def images_cell(bench: Bench, factor: int, seed: int) -> dict[str, Any]:
    """One mask a set with a multiple of the work."""
    work = bench.work * factor
    evidence, about = bench.scored(bench.limited(METHODS["batch"], work), seed)
    policy = Policy("found", price_power=1.0, floor=2)
    return {**about, **bench.accuracies(policy, evidence, (0.5,))}


def range_cell(bench: Bench, settings: EnsembleSettings, seed: int) -> dict[str, Any]:
    """Predicted against measured, 40 masks a share."""
    scene, rng = bench.scene, np.random.default_rng(seed)
    channel_map = scene.space.channel_map
    surrogate = surrogate_of(bench.ensemble(bench.limited(settings), seed), channel_map)
    split = draw(scene.data.train, settings.images)
    probe = Probe(scene.model, channel_map, scene.data, split, settings, scene.machine)
    rows = np.arange(0, len(split), 8)
    found = {}
    for share in SHARES:
        masks = draw_masks(40, channel_map.group_of, keep=1 - share, rng=rng)
        true = [
            float(probe.sample_changes(np.broadcast_to(mask, (len(rows), len(mask))), rows).mean())
            for mask in masks
        ]
        predicted, error = surrogate.predict(masks)
        found[str(share)] = {
            "correlation": round(float(np.corrcoef(true, predicted)[0, 1]), 4),
            "bias": round(float(np.mean(predicted - true)), 4),
            "within_two_errors": float((np.abs(predicted - true) < 2 * error).mean()),
            "beyond": float(surrogate.beyond(masks).mean()),
        }
    return found


def scaling_cell(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What one chunk, one fit and a thousand predictions cost; random weights."""
    model, _ = working_copy(build_model(name, classes=10, input_shape=shape, seed=0).eval())
    channel_map = trace_channels(model, shape)
    images = torch.randint(0, 256, (512, *shape), dtype=torch.uint8)
    split = Split(images, torch.arange(512) % 10)
    data = Data("made", split, split, None, 10, (0.5,) * 3, (0.25,) * 3, shape)
    machine: Machine = detect_machine(model, shape)
    found: dict[str, Any] = {"atoms": channel_map.atoms}
    for per in ("sample", "gradient"):
        settings = EnsembleSettings(per=per, images=512, samples=2048)
        campaign = begin(Probe(model, channel_map, data, split, settings, machine), 0)
        campaign.taylor = np.random.default_rng(0).random(channel_map.atoms)
        campaign.take_chunk()
        start = time.perf_counter()
        campaign.take_chunk()  # held out: losses alone
        campaign.take_chunk()
        found[f"{per}_chunk_seconds"] = round((time.perf_counter() - start) / 2, 2)
        if per == "sample":
            tables = campaign.tables()
            found["sums_bytes"] = sum(table.nbytes for table in tables.values())
            start = time.perf_counter()
            campaign.fit(errors=False)
            found["fit_seconds"] = round(time.perf_counter() - start, 2)
    found["peak_bytes_so_far"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def cells_of(bench: Bench, sections: list[str], seeds: int) -> dict[str, Cell]:
    """Every cell by name."""
    cells: dict[str, Cell] = {}
    for seed in range(seeds):
        if "quality" in sections:
            known = {
                f"{score}, price power {power:g}": Policy(score, price_power=power, floor=2)
                for score in ("taylor", "mean-abs-weight")
                for power in POWERS
            }
            cells[f"quality, known, seed {seed}"] = partial(
                known_cell, bench, {**known, **CONTROLS}, seed
            )
            for name, settings in METHODS.items():
                cells[f"quality, {name}, seed {seed}"] = partial(
                    quality_cell, bench, settings, seed
                )
        if "images" in sections:
            for factor in (1, 4, 16):
                cells[f"images, batch x {factor}, seed {seed}"] = partial(
                    images_cell, bench, factor, seed
                )
        if "range" in sections:
            for name, settings in RANGES.items():
                cells[f"range, {name}, seed {seed}"] = partial(range_cell, bench, settings, seed)
    if "scaling" in sections:
        for name, shape in SCALED.items():
            cells[f"scaling, {name}"] = partial(scaling_cell, name, shape)
    return cells


def scene_named(model: str, weights: Path | None) -> Scene:
    """A baseline by name; `published` weights; or a ResNet with weights of one's own."""
    if model == "published":
        return published_resnet20()
    if weights is None:
        return baseline(model)
    about = {"network": model, "weights_sha256": file_hash(weights)}
    return scene_of(model, weights, whole(), about, ())


def main() -> None:
    """Fill the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet20", help="resnet20, resnet56 or published")
    parser.add_argument("--weights", type=Path, help="instead of the baseline's")
    parser.add_argument("--sections", nargs="+", default=["quality", "images", "range", "scaling"])
    parser.add_argument("--work", type=int, default=98_304, help="forwarded images a method")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--validation-images", type=int)
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ensembles.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    scene = scene_named(options.model, options.weights)
    if options.validation_images:
        order = np.random.default_rng(0).permutation(len(scene.data.validation))  # it is sorted
        rows = torch.from_numpy(order[: options.validation_images])
        data = replace(scene.data, validation=take(scene.data.validation, rows), test=None)
        scene = replace(scene, data=data)
    about = {**scene.about, "work": options.work, "validation": len(scene.data.validation)}
    cells = cells_of(Bench(scene, options.work), options.sections, options.seeds)
    fill(options.out, about, cells, max_seconds=options.max_seconds)


if __name__ == "__main__":
    main()
