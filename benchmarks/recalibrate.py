"""What batch-norm recalibration does to a whole network, on augmented images and on plain ones.

    python -m benchmarks.recalibrate [--out FILE]

Nothing is cut, so an ideal recalibration would change nothing for the baseline; the published
weights were trained on other images, and may gain. Test accuracy; needs `benchmarks.baseline`.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.cells import fill
from benchmarks.scene import Scene, baseline, published_resnet20
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm


def accuracy(scene: Scene, augment: str | None) -> dict[str, float]:
    """Test accuracy as it is (None), or recalibrated on augmented or plain images."""
    model, data = copy.deepcopy(scene.model), scene.data
    if augment is not None:
        recalibrate_batch_norm(model, replace(data, augment=augment), machine=scene.machine)
    assert data.test is not None
    return {"test": evaluate(model, data.test, data, machine=scene.machine).accuracy}


def main() -> None:
    """Six cells."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recalibrate.json"))
    asked = parser.parse_args()
    scenes = {"baseline": baseline("resnet20"), "published weights": published_resnet20()}
    ways: dict[str, str | None] = {"as it is": None, "augmented": "flip-crop", "plain": "none"}
    cells: dict[str, Callable[[], dict[str, float]]] = {
        f"{name}, {way}": partial(accuracy, scene, augment)
        for name, scene in scenes.items()
        for way, augment in ways.items()
    }
    fill(asked.out, {name: scene.about for name, scene in scenes.items()}, cells)


if __name__ == "__main__":
    main()
