"""What foretells best which masks are good: surrogates against measured accuracy.

    python -m benchmarks.screening [--images 32768]

The masks are those of `benchmarks.global_pruning resnet20 --parts raw`: 94 policies at 0.6 and at
0.4 of the FLOPs, cut and recalibrated, nothing trained. Each surrogate is measured on as many
forwarded images. `all` is the rank correlation of foretold loss and validation accuracy over all
masks of a size, `best half` over the more accurate half, `first 8` the mean accuracy of the eight
masks that the surrogate would try first, beside the best eight there are.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import fill
from benchmarks.ensembles.surrogate import build_surrogate
from benchmarks.global_pruning import CHOSEN_BY, SIZES, mask, policies
from benchmarks.scene import Scene, baseline
from paretoprune.analysis.mask_ensembles import EnsembleSettings, measure_ensemble
from paretoprune.analysis.mask_ensembles.posterior import spearman_correlation

OUT = Path("benchmarks/results/screening.json")
DEEP = EnsembleSettings(
    per="batch", keep=0.6, spread=0.3, norms="batch", images=64, samples=512, agreement=1.0
)
WAYS = {
    "a mask a sample, keep 0.98": EnsembleSettings(keep=0.98, agreement=1.0),
    "a mask a sample, keep 0.75 +- 0.2": EnsembleSettings(
        keep=0.75, spread=0.2, norms="batch", agreement=1.0
    ),
    "a mask a set of 64, keep 0.6 +- 0.3": DEEP,
    "the same, sets of 32": replace(DEEP, images=32, samples=1024),
    "the same, sets of 128": replace(DEEP, images=128, samples=256),
    "the same, keep 0.9": replace(DEEP, keep=0.9, spread=0.05),
    "the same, no prior": replace(DEEP, prior="none"),
    "the same, curvature": replace(DEEP, curvature=True),
}
Known = dict[float, tuple[NDArray[np.bool_], NDArray[np.float64]]]


def measured_masks(scene: Scene) -> Known:
    """Masks [n, A] and their validation accuracy [n], by size."""
    cells = json.loads(CHOSEN_BY.read_text())["cells"]
    known = {}
    for size in SIZES:
        names = [name for name in policies() if f"raw {name} @ {size} seed 0" in cells]
        masks = np.stack([mask(scene, policies()[name], size, 0) for name in names])
        accuracy = [cells[f"raw {name} @ {size} seed 0"]["validation"] for name in names]
        known[size] = masks, np.array(accuracy)
    return known


def foretold(
    scene: Scene, known: Known, settings: EnsembleSettings, images: int
) -> dict[str, Any]:
    """How well one surrogate orders the masks of each size."""
    fitted = measure_ensemble(
        scene.model,
        scene.space.channel_map,
        scene.data,
        settings if settings.per == "batch" else replace(settings, samples=images),
        folder=None,
        seed=0,
    )
    surrogate = build_surrogate(fitted, scene.space.channel_map)
    found: dict[str, Any] = {"held_out_r2": round(fitted.checks[-1].held_out_r2, 3)}
    for size, (masks, accuracy) in known.items():
        predicted = surrogate.predict_mean(masks)
        half = np.argsort(-accuracy)[: len(accuracy) // 2]
        found[f"all @ {size}"] = round(spearman_correlation(-predicted, accuracy), 3)
        found[f"best half @ {size}"] = round(
            spearman_correlation(-predicted[half], accuracy[half]), 3
        )
        found[f"first 8 @ {size}"] = round(float(accuracy[np.argsort(predicted)[:8]].mean()), 4)
        found[f"best 8 @ {size}"] = round(float(np.sort(accuracy)[-8:].mean()), 4)
    return found


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=32_768)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    scene = baseline("resnet20")
    known = measured_masks(scene)
    cells = {
        name: partial(foretold, scene, known, settings, asked.images)
        for name, settings in WAYS.items()
    }
    fill(asked.out, {**scene.about, "images": asked.images}, cells)


if __name__ == "__main__":
    main()
