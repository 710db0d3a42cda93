"""Linear filter ensembles: what their scores are worth at equal work, how far they can be trusted.

quality   accuracy without fine-tune, raw and recalibrated, of masks ranked by the main kinds of
          ensemble, by Taylor and by mean |w|; controls: uniform and random. Work is counted in
          forwarded images, a backward as two of them.
variants  the same of other settings, one seed
images    how many images one mask a set takes to reach what one mask a sample gives
range     correlation of predicted and measured loss changes, at 5 to 60 % of the atoms removed
rounds    the same work in one round, or half of it on a network that is cut halfway: the masks
          that come out, and how each round's model predicts masks around the first one's answer
scaling   seconds and memory against the number of atoms; predictions a second

python -m benchmarks.ensembles [--model resnet20] [--sections quality,images] [--work 32768]
    [--seeds 3] [--images N] [--max-seconds S] [--out FILE]

Nothing is chosen by the reporting images: of the test split, or of the validation split with
--report validation.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.cells import Cell, fill, named
from benchmarks.cifar_jpeg import whole
from benchmarks.ensembles.bench import Bench
from benchmarks.ensembles.quality import (
    FACTORS,
    KNOWN,
    MAIN,
    SEEDED,
    VARIANTS,
    images_cell,
    known_cell,
    quality_cell,
)
from benchmarks.ensembles.scaling import SCALED, scaling_cell
from benchmarks.ensembles.trust import RANGES, ROUNDS, range_cell, rounds_cell
from benchmarks.scene import Scene, baseline, published_resnet20, scene_of
from paretoprune.trainers.data.batches import select_rows
from paretoprune.trainers.training.train_dense import file_sha256

SECTIONS = ("quality", "variants", "images", "range", "rounds", "scaling")


def cells_of(bench: Bench, sections: list[str], seeds: int) -> dict[str, Cell]:
    """Every cell by name."""
    cells: dict[str, Cell] = {}
    for seed in range(seeds):
        parts: dict[str, dict[str, Cell]] = {
            "quality": {
                **{
                    name: partial(known_cell, bench, one, seed)
                    for name, one in KNOWN.items()
                    if seed == 0 or name in SEEDED
                },
                **{name: partial(quality_cell, bench, one, seed) for name, one in MAIN.items()},
            },
            "variants": {
                name: partial(quality_cell, bench, one, seed)
                for name, one in (VARIANTS.items() if seed == 0 else ())
            },
            "images": {
                f"batch x {factor}": partial(images_cell, bench, factor, seed)
                for factor in FACTORS
            },
            "range": {name: partial(range_cell, bench, one, seed) for name, one in RANGES.items()},
            "rounds": {
                name: partial(rounds_cell, bench, one, seed) for name, one in ROUNDS.items()
            },
        }
        for section, found in parts.items():
            if section in sections:
                named_cells = {f"{section}, {name}, seed {seed}": c for name, c in found.items()}
                cells |= named_cells
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
    about = {"network": model, "weights_sha256": file_sha256(weights)}
    return scene_of(model, weights, whole(), about, ())


def main() -> None:
    """Fill the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet20", help="resnet20, resnet56 or published")
    parser.add_argument("--weights", type=Path, help="instead of the baseline's")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--work", type=int, default=32_768, help="forwarded images a method")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", choices=("test", "validation"), default="test")
    parser.add_argument("--images", type=int, help="of the reporting split; default: all")
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ensembles.json"))
    options = parser.parse_args()
    sections = named("--sections", options.sections, SECTIONS)
    torch.set_num_threads(1)
    scene = scene_named(options.model, options.weights)
    report = scene.data.test if options.report == "test" else scene.data.validation
    assert report is not None
    if options.images:
        order = np.random.default_rng(0).permutation(len(report))  # it is sorted
        report = select_rows(report, torch.from_numpy(order[: options.images]))
    about = {**scene.about, "work": options.work, "report": f"{len(report)} of {options.report}"}
    cells = cells_of(Bench(scene, options.work, report), sections, options.seeds)
    fill(options.out, about, cells, max_seconds=options.max_seconds)


if __name__ == "__main__":
    main()
