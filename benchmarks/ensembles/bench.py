"""What is pruned, and what every cell does with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.scene import Scene, price_of
from paretoprune.analysis.mask_ensembles import (
    EnsembleResult,
    EnsembleSettings,
    add_ensemble,
    measure_ensemble,
)
from paretoprune.spaces.allocations.decode import decode_policy
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import Policy
from paretoprune.trainers.data.splits import Split
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.surgery import prune_network

TARGETS = (0.6, 0.5, 0.4)
FOUND = Policy("found", price_power=1.0, price_at="present", floor=2)
BACKWARD = 3  # forwards that a forward with a backward is worth
WHOLE = EnsembleSettings(agreement=1.0)  # to the limit, so that work is equal


@dataclass(frozen=True)
class Bench:
    """What is pruned, how much work every method gets, and the images that report."""

    scene: Scene
    work: int
    report: Split

    def limited(self, settings: EnsembleSettings, work: int | None = None) -> EnsembleSettings:
        """As many masks as the work allows."""
        cost = {"sample": 1, "gradient": BACKWARD, "batch": settings.images}[settings.per]
        return replace(settings, samples=max((work or self.work) // cost, 16))

    def ensemble(self, settings: EnsembleSettings, seed: int) -> EnsembleResult:
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

    def scored(self, settings: EnsembleSettings, seed: int) -> tuple[Measurements, dict[str, Any]]:
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
        return add_ensemble(Measurements("", {}), "found", found), about

    def accuracy(self, keep: NDArray[np.bool_]) -> dict[str, float]:
        """Of the cut network, raw and recalibrated, and its size."""
        scene, machine = self.scene, self.scene.machine
        small = prune_network(scene.model, scene.space.channel_map, keep)
        raw = evaluate(small, self.report, scene.data, machine=machine).accuracy
        recalibrate_batch_norm(small, scene.data, machine=machine)
        again = evaluate(small, self.report, scene.data, machine=machine).accuracy
        return {"raw": raw, "recalibrated": again, **price_of(scene, keep)}

    def accuracies(
        self, policy: Policy, evidence: Measurements, targets: tuple[float, ...] = TARGETS
    ) -> dict[str, Any]:
        """Raw and recalibrated, at every target."""
        space = self.scene.space
        return {
            str(target): self.accuracy(decode_policy(policy, Target(target), evidence, space))
            for target in targets
        }
