"""Trained gates: what a step costs, how closely targets are met, what cutting early saves.

    python -m benchmarks.gates [cost] [targets] [speed] [variants] [settings] [--out FILE]

Resumable cell by cell: what the results hold already is not measured again. `cost` and `speed`
take ResNet-20 on CIFAR-10 (JPEG), `targets` five networks on random images (only sizes are looked
at), `variants` and `settings` a small network on digits and, with --large NAME, a baseline of
`python -m benchmarks.baseline`: accuracy with each indicator, and with each other setting changed.
Gates against other ways at equal total epochs: `python -m benchmarks.equal_epochs`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import cifar_jpeg
from benchmarks.scene import Scene, accuracies, baseline, digits, price_of
from paretoprune.analysis.scores.measure import load_or_measure_scores
from paretoprune.spaces.allocations.decode import PruningSpace
from paretoprune.spaces.allocations.ordering import PolicyScorer
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.policy import POLICY_PRESETS
from paretoprune.trainers.data.batches import fixed_subset
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.gates.indicators import INDICATORS
from paretoprune.trainers.pruning.gates.network import GatedNetwork
from paretoprune.trainers.pruning.gates.settings import GateSettings, GateTrainingSpec
from paretoprune.trainers.pruning.gates.size_penalty import SizePenalty
from paretoprune.trainers.pruning.gates.trainer import train_gates
from paretoprune.trainers.runtime.device import detect_device_config
from paretoprune.trainers.training.loop import train_model
from paretoprune.trainers.training.optimizer import CustomLearningRate, TrainingSettings
from paretoprune.trainers.training.session import AuxiliaryLosses, TrainingSession

Cell = dict[str, object]
NETWORKS = {  # name: input, rows and batch of the random images
    "resnet20": ((3, 32, 32), 1920, 64),
    "resnet56": ((3, 32, 32), 1280, 64),
    "vgg16": ((3, 32, 32), 960, 32),
    "lenet5": ((1, 28, 28), 3840, 64),
    "torchvision:mobilenet_v2": ((3, 32, 32), 960, 32),
}
PAIRS = ((0.7, 0.7), (0.5, 0.5), (0.3, 0.3), (0.5, 0.3))
ROUNDS, STEPS = 9, 4
DIGITS, DIGITS_SEEDS = TrainingSettings(epochs=10, batch_size=64), 5
SETTINGS: dict[str, dict[str, Any]] = {
    f"{name} {value:g}": {name: value}
    for name, values in {
        "learning_rate": (0.25, 0.5, 2.0),
        "settle": (0.25, 1.0),
        "weight": (2.0, 10.0),
        "approach": (0.25, 0.75),
        "near": (0.1, 0.4),
    }.items()
    for value in values
}


def cost(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """Seconds of a step with gates and without, in alternating rounds."""

    def measure() -> Cell:
        data = cifar_jpeg.whole()
        plain, gated = sessions(data)
        spent: dict[str, list[float]] = {"plain": [], "gated": []}
        for _ in range(ROUNDS + 1):
            for name, session in (("plain", plain), ("gated", gated)):
                begin = time.perf_counter()
                session.advance(session.step + STEPS)
                spent[name].append((time.perf_counter() - begin) / STEPS)
        rounds = list(zip(spent["gated"], spent["plain"], strict=True))[1:]
        return {
            "plain_seconds": statistics.median(p for _, p in rounds),
            "gated_seconds": statistics.median(g for g, _ in rounds),
            "ratio": statistics.median(g / p for g, p in rounds),
        }

    yield "resnet20", measure


def sessions(data: DataSplits) -> tuple[TrainingSession, TrainingSession]:
    """A plain training of ResNet-20 and one with gates, at the same place."""
    tuning, plain = TrainingSettings(epochs=1), network("resnet20", data.input_shape)
    space = space_of(plain, data.input_shape)
    task = GateTrainingSpec(space, Target(0.4, 0.4), GateSettings(tuning))
    ones = torch.ones(space.channel_map.atoms)
    gated = GatedNetwork(
        network("resnet20", data.input_shape), space.channel_map, ones,
        variant=task.settings.variant, floor=1, steps=len(data.train) // tuning.batch_size,
    )  # fmt: skip
    guidance = AuxiliaryLosses(
        penalty=SizePenalty(gated, space.cost_model, task),
        own_rates=(CustomLearningRate(gated.gates, task.settings.gate_learning_rate_at),),
    )
    machine = detect_device_config(plain, data.input_shape)
    return (
        TrainingSession(plain, data, tuning, seed=0, machine=machine),
        TrainingSession(gated, data, tuning, seed=0, guidance=guidance, machine=machine),
    )


def targets(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """Both sizes reached by a few epochs of gates, for every network and pair."""
    for name, (shape, rows, batch) in NETWORKS.items():
        for pair in PAIRS:

            def measure(
                name: str = name,
                rows: int = rows,
                shape: tuple[int, ...] = shape,
                batch: int = batch,
                pair: tuple[float, float] = pair,
            ) -> Cell:
                data, model = random_images(shape, rows), network(name, shape)
                space = space_of(model, shape)
                settings = GateSettings(TrainingSettings(epochs=options.epochs, batch_size=batch))
                begin = time.perf_counter()
                found = train_gates(model, data, GateTrainingSpec(space, Target(*pair), settings))
                reached = space.cost_model.cost_fractions(found.keep)
                return {
                    "target": pair,
                    "gated": found.trajectory.sizes[-1].tolist(),
                    "reached": reached,
                    "error": max(abs(r / p - 1) for r, p in zip(reached, pair, strict=True)),
                    "moved": found.flipped_atoms,
                    "atoms": space.channel_map.atoms,
                    "seconds": time.perf_counter() - begin,
                }

            yield f"{name} {pair[0]} {pair[1]}", measure


def speed(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """Seconds of gate training at 0.3 FLOPs with cutting on the way and without."""

    def measure() -> Cell:
        data = cifar_jpeg.whole()
        data = few_rows(data, options.rows)
        model = network("resnet20", data.input_shape)
        space, seconds, last = space_of(model, data.input_shape), {}, {}
        for name, every in (("whole", None), ("cut", 0.5)):
            settings = GateSettings(TrainingSettings(epochs=options.epochs), shrink_every=every)
            found = train_gates(model, data, GateTrainingSpec(space, Target(0.3), settings))
            history = found.log.history
            seconds[name] = found.log.seconds
            mark = max(i for i, p in enumerate(history) if p.epoch <= options.epochs - 1)
            last[name] = history[-1].seconds - history[mark].seconds
        return {
            "seconds": seconds,
            "last_epoch_seconds": last,
            "whole_run": seconds["whole"] / seconds["cut"],
            "last_epoch": last["whole"] / last["cut"],
        }

    yield "resnet20 0.3", measure


def variants(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """Each way to turn gate values into a mask."""
    return changed(options, {name: {"variant": name} for name in INDICATORS})


def settings(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """One setting at a time away from its default; `variants` has the defaults."""
    return changed(options, SETTINGS)


def changed(
    options: argparse.Namespace, changes: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, Callable[[], Cell]]]:
    """Gates with these settings, then fine-tune, from a dense network."""
    for seed in range(DIGITS_SEEDS):
        for size in (0.2, 0.1):
            for name, change in changes.items():
                measure = partial(gated_and_tuned, digits, change, size, seed, DIGITS)
                yield f"digits-resnet {size} {name} seed {seed}", measure
    if options.large:
        half, scene = TrainingSettings(epochs=options.epochs / 2), partial(large, options.large)
        for seed in range(options.seeds):
            for name, change in changes.items():
                measure = partial(gated_and_tuned, scene, change, 0.4, seed, half)
                yield f"{options.large} {options.epochs:g} 0.4 {name} seed {seed}", measure


def large(name: str, seed: int) -> Scene:
    """A baseline, the same under every seed."""
    return baseline(name)


def gated_and_tuned(
    scene_of_seed: Callable[[int], Scene],
    change: dict[str, Any],
    size: float,
    seed: int,
    half: TrainingSettings,
) -> Cell:
    """Half of the epochs with gates, as the preset does, half after the cut."""
    scene, preset = scene_of_seed(seed), POLICY_PRESETS["holistic"]
    model, data, space = scene.model, scene.data, scene.space
    names = [preset.score]
    evidence = load_or_measure_scores(
        model, space.channel_map, data, folder=None, seed=0, names=names
    )
    (scores,) = PolicyScorer(evidence, space.channel_map, space.cost_model).scores([preset])
    settings = GateSettings(half, floor=preset.floor, **change)
    task = GateTrainingSpec(space, Target(size), settings, scores=scores, seed=seed)
    found = train_gates(model, data, task, teacher=scene.teacher, machine=scene.machine)
    recalibrate_batch_norm(found.model, data, machine=scene.machine)
    train_model(found.model, data, half, seed=seed, teacher=scene.teacher, machine=scene.machine)
    return {
        "epochs": 2 * half.epochs,
        "gated": found.trajectory.sizes[-1].tolist(),
        "moved": found.flipped_atoms,
        **price_of(scene, found.keep),
        **accuracies(scene, found.model),
    }


def network(name: str, shape: tuple[int, ...]) -> nn.Module:
    """A network by name, always with the same weights."""
    return make_working_copy(build_model(name, classes=10, input_shape=shape, seed=0))[0]


def space_of(model: nn.Module, shape: tuple[int, ...]) -> PruningSpace:
    """All atoms of a network, no limits."""
    channel_map = trace_channel_map(model, shape)
    return PruningSpace(channel_map, CostModel(channel_map))


def random_images(shape: tuple[int, ...], rows: int) -> DataSplits:
    """Noise with a label that a network can learn: the brightest of ten bands."""
    rng = torch.Generator().manual_seed(0)
    images, labels = torch.randn(rows, *shape, generator=rng), torch.arange(rows) % 10
    for row, label in enumerate(labels.tolist()):
        images[row, :, 3 * label : 3 * label + 3] += 1
    split = Split(images, labels)
    return DataSplits("noise", split, split, None, 10, (0.0,) * shape[0], (1.0,) * shape[0], shape)


def few_rows(data: DataSplits, rows: int) -> DataSplits:
    """The same data with fewer images to train on, of all classes."""
    return replace(data, train=fixed_subset(data.train, rows))


PARTS = {
    "cost": cost,
    "targets": targets,
    "speed": speed,
    "variants": variants,
    "settings": settings,
}


def main() -> None:
    """Measure what is asked for and missing, and write each figure down at once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gates.json"))
    parser.add_argument("--epochs", type=float, default=4.0, help="in all")
    parser.add_argument("--rows", type=int, default=6400, help="training images of `speed`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--large", metavar="NAME", help="a baseline, beside digits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = options.out
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"schema": 1}
    found["torch"] = torch.__version__
    for part in options.parts:
        cells = found.setdefault(part, {})
        for name, measure in PARTS[part](options):
            if name not in cells:
                cells[name] = measure()
                out.write_text(json.dumps(found, indent=1) + "\n")
            print(part, name, json.dumps(cells[name]), flush=True)


if __name__ == "__main__":
    main()
