"""Ways to choose what goes, each as a trial of a search, at equal total epochs of training.

    python -m benchmarks.equal_epochs resnet20 [--epochs 4] [--ways holistic,uniform] [--seeds 3]
    python -m benchmarks.equal_epochs resnet56-brief --epochs 1 --seeds 1
    python -m benchmarks.equal_epochs digits-resnet --epochs 20 --sizes 0.4,0.2
    python -m benchmarks.equal_epochs vgg16-short --epochs 0.5 --params 0.139 --seeds 1

Gates and steps spend a part of the epochs on the way down, a single cut spends all of them after
it. Evidence is measured once a network, under one seed; the seeds are those of the training. Cells
that the results file has are not measured again. Needs `python -m benchmarks.baseline`. `--plot
FILE.svg` draws how the gates met the smallest size. With `--params` the sizes are shares of the
parameters: 0.139, 0.47 and 0.522 are what the first paper leaves of VGG-16, ResNet-110, ResNet-56.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cells import fill, named
from benchmarks.gate_plot import gate_history_drawing
from benchmarks.scene import Scene, accuracies, baseline, digits
from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.search.storage.trial_spec import TrialSpec
from paretoprune.search.trial.budget import TrialBudget
from paretoprune.search.trial.context import TrialContext
from paretoprune.search.trial.execute import execute_trial
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.channels import channel_map_digest
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, POLICY_PRESETS, Policy, presets_for
from paretoprune.spaces.records.gate_history import GATE_HISTORY_FILE, gate_history_from_json
from paretoprune.spaces.records.recipe import ModelSource
from paretoprune.trainers.data.cache import cache_folder
from paretoprune.trainers.pruning.serialization import load_pruned_model

BUDGET = Policy("taylor", allocation="loss-budget", floor=2, probe="batch")
WAYS = {
    "taylor-by-price": POLICY_PRESETS["taylor-by-price"],
    "holistic": POLICY_PRESETS["holistic"],
    "ensemble": Policy("ensemble", price_power=1.0, price_at="present", floor=2),
    "loss-budget": replace(BUDGET, curves="threshold"),
    "least-sum": replace(BUDGET, curves="least-sum"),
    "uniform": CONTROL_POLICIES["uniform"],
    "balanced-pruning": POLICY_PRESETS["balanced-pruning"],
    "linear-ensembles": POLICY_PRESETS["linear-ensembles"],
    "gradually-global": POLICY_PRESETS["gradually-global"],
    "pruning-at-a-glance": POLICY_PRESETS["pruning-at-a-glance"],
    "taylor-by-macs": POLICY_PRESETS["taylor-by-price"],
    "taylor-by-params": replace(POLICY_PRESETS["taylor-by-price"], price_blend=1.0),
}
NETWORKS = (
    "resnet20",
    "resnet56",
    "resnet20-brief",
    "resnet56-brief",
    "vgg16-short",
    "resnet110-short",
    "digits-resnet",
)
OUT = Path("benchmarks/results")


def evidence_of(scene: Scene, ways: Iterable[str]) -> Measurements:
    """What these ways read, measured once and kept in the cache."""
    folder = cache_folder() / "equal_epochs"
    on = MeasurementContext(scene.model, scene.space.channel_map, scene.data, 0, folder=folder)
    return measure_for_policies([WAYS[way] for way in ways], on)


def trained(
    scene: Scene, evidence: Measurements, way: str, target: Target, epochs: float, seed: int
) -> dict[str, Any]:
    """One trial, as a worker of a search would run it, and its test accuracy."""
    channel_map, shape = scene.space.channel_map, tuple(scene.data.input_shape)
    with tempfile.TemporaryDirectory() as folder:
        context = TrialContext(
            model=scene.model,
            data=scene.data,
            space=scene.space,
            measurements=evidence,
            source=ModelSource(scene.about["network"], scene.data.classes, shape),
            map_sha256=channel_map_digest(channel_map),
            root=Path(folder),
            budget=TrialBudget(epochs),
            machine=scene.machine,
            teacher=scene.teacher,
        )
        policy = replace(presets_for(target).get(way, WAYS[way]), refit=False)  # masks alone
        carried = execute_trial(TrialSpec(0, policy, target, seed, number=0), context)
        found = carried.evaluation
        small = load_pruned_model(context.root / found.path, scene.model, channel_map)
        course = context.root / found.path / GATE_HISTORY_FILE
        gates = {"course": json.loads(course.read_text())} if course.exists() else {}
    return {
        **accuracies(scene, small),
        "flops": round(found.flops_fraction, 4),
        "params": round(found.params_fraction, 4),
        "epochs": found.epochs,
        "spans": carried.seconds,
        **gates,
    }


def plot(found: dict[str, Any], path: Path) -> None:
    """The course of gates with the smallest target, of the first such cell."""
    gated = [cell["course"] for cell in found["cells"].values() if "course" in cell]
    course = gate_history_from_json(min(gated, key=lambda course: course["target_flops"]))
    gate_history_drawing(course, f"Gates of {found['network']}, {found['data']}").save(path)


def flops(text: str) -> dict[str, Target]:
    """Shares of the FLOPs."""
    return {part: Target(float(part)) for part in text.split(",")}


def params(text: str) -> dict[str, Target]:
    """Shares of the parameters."""
    return {f"params {part}": Target(None, float(part)) for part in text.split(",")}


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--epochs", type=float, default=4.0, help="in all, for every way")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--sizes", type=flops, default=flops("0.6,0.4"))
    parser.add_argument("--params", dest="sizes", type=params, help="instead of --sizes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ways = named("--ways", asked.ways, WAYS)
    scene = digits(0) if asked.network == "digits-resnet" else baseline(asked.network)
    evidence = evidence_of(scene, ways)
    cells = {
        f"{asked.epochs:g} epochs {way} @ {size} seed {seed}": partial(
            trained, scene, evidence, way, target, asked.epochs, seed
        )
        for seed in range(asked.seeds)
        for way in ways
        for size, target in asked.sizes.items()
    }
    out = asked.out or OUT / f"equal_epochs_{asked.network}.json"
    found = fill(out, scene.about, cells, max_seconds=asked.max_seconds)
    if asked.plot:
        plot(found, asked.plot)


if __name__ == "__main__":
    main()
