"""What foretells the loss of policies' masks: rehearsals of a few of them, or random masks.

    python -m benchmarks.rehearsal

Masks are those of policies drawn from the search's default space, cut at once, at 0.2 to 0.8 of
the FLOPs of ResNet-20. `foretold`: rank correlation with the rehearsed loss of 120 masks that were
not fitted, within four ranges of size. `rehearsed`: rank correlation of the rehearsed loss with
the validation accuracy after recalibration, at 0.4. `after an epoch`: with that of the fine-tuned
network. `screened`: the recalibrated accuracy of the policies that screening would try at twelve
sizes, of the preset taylor-by-price, and of the policies of least loss by the linear model of
random masks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import Cell, fill
from benchmarks.ensembles.surrogate import build_surrogate
from benchmarks.scene import Scene, baseline, with_tuning, without_tuning
from benchmarks.screening import DEEP
from paretoprune.analysis.mask_ensembles import measure_ensemble
from paretoprune.analysis.mask_ensembles.posterior import spearman_correlation
from paretoprune.analysis.measure import (
    MeasurementContext,
    MeasurementLimits,
    ignore_progress,
    measure_for_policies,
)
from paretoprune.analysis.untrained_loss import evaluate_untrained, fit_untrained_loss_predictor
from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.open_store import policy_space_for
from paretoprune.search.optimizer.plan import make_plan
from paretoprune.search.optimizer.screening import (
    PolicyPredictor,
    draw_candidates,
    draw_one_shot_policies,
    screen_policies,
)
from paretoprune.search.optimizer.search_space import PolicySpace
from paretoprune.spaces.allocations.decode import decode_policies, decode_policy
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.layer_scores import combine_layers
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, POLICY_PRESETS, Policy
from paretoprune.trainers.data.cache import cache_folder
from paretoprune.trainers.training.optimizer import TrainingSettings

OUT = Path("benchmarks/results/rehearsal.json")
MASKS, TESTED = 360, 120
FITTED = (64, 96, 128, 240)
RANGES = ((0.2, 0.3), (0.3, 0.42), (0.42, 0.58), (0.58, 0.8))
SLOTS, LOOKED_AT = 12, 24
TUNED, TUNED_AT = 12, (0.4, 0.2)  # masks, and their shares of the FLOPs

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bench:
    """The network, what its policies read, and the policies that are drawn."""

    scene: Scene
    measuring: MeasurementContext
    policies: PolicySpace
    screen: PolicyPredictor

    def rehearsed(self, masks: Masks) -> Values:
        """Their losses."""
        return evaluate_untrained(masks, self.measuring, ignore_progress)

    def drawn(self, count: int, sizes: Values, seed: int) -> Masks:
        """Masks of random policies, one a size."""
        drawn = draw_one_shot_policies(self.policies, count, np.random.default_rng(seed))
        policies = [policy for policy, _ in drawn]
        targets = [Target(round(float(size), 4)) for size in sizes]
        return decode_policies(policies, targets, self.screen.measurements, self.scene.space)[0]

    def accuracy(self, mask: Masks) -> float:
        """On validation, recalibrated and not trained."""
        return without_tuning(self.scene, mask, raw=False)["validation"]


def bench_on(scene: Scene) -> Bench:
    """A network and all evidence that its default policies read."""
    folder = cache_folder() / "rehearsal"
    limits = MeasurementLimits(images=16_384, curve_images=512)
    measuring = MeasurementContext(
        scene.model, scene.space.channel_map, scene.data, 0, folder, limits
    )
    policies = policy_space_for(SearchSettings(target_flops="0.4"), scene.space)
    evidence = measure_for_policies(
        [*policies.policies_to_measure, *CONTROL_POLICIES.values(), Policy("taylor")], measuring
    )
    return Bench(scene, measuring, policies, PolicyPredictor(scene.space, evidence))


def foretold(on: Bench, means: Callable[[Masks], Values], masks: Masks, sizes: Values) -> Any:
    """Rank correlations with the rehearsed loss, within ranges of size."""
    losses, found = on.rehearsed(masks), means(masks)
    return {
        f"{low}-{high}": round(spearman_correlation(losses[rows], found[rows]), 3)
        for low, high in RANGES
        for rows in [(sizes >= low) & (sizes < high)]
    }


def by_rehearsals(on: Bench, count: int) -> dict[str, Any]:
    """A Gaussian process on this many of them."""
    masks, sizes = pool(on)
    worth = combine_layers(
        on.screen.measurements.scores["taylor"], on.measuring.channel_map, "sum"
    )
    start = time.perf_counter()
    losses = on.rehearsed(masks[:count])
    seconds = time.perf_counter() - start
    known = fit_untrained_loss_predictor(masks[:count], losses, worth, on.measuring.channel_map)
    assert known is not None
    tested = foretold(on, known.predict, masks[-TESTED:], sizes[-TESTED:])
    return {**tested, "seconds_a_mask": round(seconds / count, 3)}


def by_random_masks(on: Bench) -> dict[str, Any]:
    """The linear model of one mask a set of 64 images."""
    masks, sizes = pool(on)
    return foretold(on, linear(on), masks[-TESTED:], sizes[-TESTED:])


def linear(on: Bench) -> Callable[[Masks], Values]:
    """What the linear model foretells."""
    at = on.measuring
    fitted = measure_ensemble(at.model, at.channel_map, at.data, DEEP, folder=at.folder, seed=0)
    return build_surrogate(fitted, at.channel_map).predict_mean


def pool(on: Bench) -> tuple[Masks, Values]:
    """Masks, and the shares of the FLOPs that they were drawn for."""
    sizes = np.exp(np.random.default_rng(2).uniform(np.log(0.2), np.log(0.8), MASKS))
    return on.drawn(MASKS, sizes, 2), sizes


def rehearsed(on: Bench) -> dict[str, Any]:
    """Whether the rehearsed loss says what the recalibrated network's accuracy will be."""
    masks = on.drawn(LOOKED_AT, np.full(LOOKED_AT, 0.4), 3)
    accuracy = np.array([on.accuracy(mask) for mask in masks])
    return {"rank_correlation": round(spearman_correlation(-on.rehearsed(masks), accuracy), 3)}


def after_an_epoch(on: Bench, size: float) -> dict[str, Any]:
    """Whether the rehearsed loss says what the fine-tuned network's accuracy will be."""
    masks = on.drawn(TUNED, np.full(TUNED, size), 4)
    losses = on.rehearsed(masks)
    accuracy = [
        with_tuning(on.scene, mask, TrainingSettings(epochs=1.0), seed=0)["validation"]
        for mask in masks
    ]
    return {
        "rank_correlation": round(spearman_correlation(-losses, np.array(accuracy)), 3),
        "losses": losses.round(3).tolist(),
        "accuracy": accuracy,
    }


def screened(on: Bench) -> dict[str, Any]:
    """The accuracies of what would be tried, size by size."""
    plan = make_plan(6 * SLOTS, Target(0.4), on.scene.space)
    around = {slot.target: slot for slot in plan if slot.index % 2}
    slots = list(around.values())[:SLOTS]
    found, _ = screen_policies(
        slots, on.policies, on.screen, on.rehearsed, rng=np.random.default_rng(0)
    )
    targets, means, rows = [slot.target for slot in slots], linear(on), []
    drawn = draw_candidates(targets, on.policies, on.screen, np.random.default_rng(0))
    for slot in slots:
        random = on.screen.masks_from_keys(drawn[slot.target].policies)
        masks = {
            "screened": decoded(on, found[slot.index].policy, slot.target),
            "preset": decoded(on, POLICY_PRESETS["taylor-by-price"], slot.target),
            "linear": random[int(np.argmin(means(random)))],
        }
        accuracy = {name: round(on.accuracy(mask), 4) for name, mask in masks.items()}
        rows.append({"flops": slot.target.flops, **accuracy})
    names = ("screened", "preset", "linear")
    mean = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in names}
    return {"mean": mean, "sizes": sorted(rows, key=lambda row: float(row["flops"]))}


def decoded(on: Bench, policy: Policy, target: Target) -> Masks:
    """The policy's mask."""
    return decode_policy(policy, target, on.screen.measurements, on.scene.space)


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    on = bench_on(baseline("resnet20"))
    cells: dict[str, Cell] = {
        **{f"foretold by {n} rehearsals": partial(by_rehearsals, on, n) for n in FITTED},
        "foretold by random masks": partial(by_random_masks, on),
        "rehearsed": partial(rehearsed, on),
        **{f"after an epoch @ {size}": partial(after_an_epoch, on, size) for size in TUNED_AT},
        "screened": partial(screened, on),
    }
    fill(asked.out, {**on.scene.about, "rehearsed_loss": "at the best temperature"}, cells)


if __name__ == "__main__":
    main()
