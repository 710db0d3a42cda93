"""How many parameters a LeNet loses without losing accuracy: a curve, with its controls.

    python -m benchmarks.without_loss [lenet5] [fc] [--seeds 3]

LeNet-5 (20-50-500) on scikit-learn's digits, upsampled to 28 x 28; the fully connected 300-100 on
MNIST. Each seed trains a dense network of its own. A cell prunes it to a share of the parameters,
at once or in steps, and fine-tunes; the dense network's figures are of the same seed. "Without
loss" is judged on the validation split; the test figure stands beside it. Ensembles take 8,192
masked images of the network as it is, in steps anew at each.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from benchmarks.cells import fill
from benchmarks.scene import Scene, accuracies, price_of, with_tuning
from paretoprune.analysis.mask_ensembles import ENSEMBLE_PRESETS, add_ensemble, measure_ensemble
from paretoprune.analysis.scores.measure import load_or_measure_scores
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target, intermediate_targets
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import Policy
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.pruning.iterative import PrunedState, StepCallbacks, prune_iteratively
from paretoprune.trainers.runtime.device import DeviceConfig
from paretoprune.trainers.training.distillation import LOGITS_CACHE_BYTES, Teacher
from paretoprune.trainers.training.loop import train_model
from paretoprune.trainers.training.optimizer import TrainingSettings

OUT = Path("benchmarks/results/without_loss.json")
SHARES = (0.2, 0.1, 0.05, 0.026)  # of the parameters; the paper's LeNet-5 keeps 2.6 %
STEPS = 6
ENSEMBLE = replace(ENSEMBLE_PRESETS["ensemble"], samples=8_192)
POLICIES = {
    "mean-abs-weight": Policy("mean-abs-weight"),
    "taylor / price": Policy("taylor", price_power=1.0, price_blend=1.0),
    "ensemble / price": Policy("ensemble", price_power=1.0, price_blend=1.0),
    "control uniform": Policy("mean-abs-weight", allocation="uniform"),
    "control random": Policy("random"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A network, its data, and how long the dense one and the pruned one are trained."""

    model: str
    data: Callable[[], DataSplits]
    dense: TrainingSettings
    tuning: TrainingSettings


@cache
def digits28() -> DataSplits:
    """The digits at LeNet's size."""
    data = load_data("digits")

    def grow(split: Split | None) -> Split | None:
        if split is None:
            return None
        size = (28, 28)
        large = F.interpolate(split.images.float(), size=size, mode="bilinear")
        return Split(large.round().to(torch.uint8), split.labels)

    train_split, validation = grow(data.train), grow(data.validation)
    assert train_split is not None
    assert validation is not None
    return replace(
        data,
        train=train_split,
        validation=validation,
        test=grow(data.test),
        input_shape=(1, 28, 28),
    )


@cache
def mnist() -> DataSplits:
    """MNIST from PARETOPRUNE_DATA (default: ../shared/data)."""
    root = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return load_data(f"mnist:{Path(os.environ.get('PARETOPRUNE_DATA', root)) / 'mnist.tar.gz'}")


PLAIN = TrainingSettings(epochs=20, learning_rate=0.05, batch_size=64, distill=0.0)
# Cut deeply, networks without batch norm die at the dense network's rate: accuracy 0.1 for good.
GENTLE = replace(PLAIN, learning_rate=0.02, clip=1.0, distill=0.7)
SETTINGS = {
    "lenet5": Setting("lenet5", digits28, PLAIN, replace(GENTLE, epochs=10)),
    "fc": Setting(
        "fc",
        mnist,
        replace(PLAIN, epochs=8, batch_size=128),
        replace(GENTLE, epochs=4, batch_size=128),
    ),
}


@cache
def scene(name: str, seed: int) -> Scene:
    """A dense network trained under this seed."""
    setting = SETTINGS[name]
    data = setting.data()
    model = build_model(setting.model, classes=10, input_shape=data.input_shape, seed=seed)
    machine = DeviceConfig()
    train_model(model, data, setting.dense, seed=seed, machine=machine)
    channel_map = trace_channel_map(model.eval(), data.input_shape)
    teacher = Teacher(model, machine, memory=LOGITS_CACHE_BYTES)
    return Scene(
        model, data, PruningSpace(channel_map, CostModel(channel_map)), machine, teacher, {}
    )


def dense(name: str, seed: int) -> dict[str, Any]:
    """The dense network's own figures."""
    found = scene(name, seed)
    return {**accuracies(found, found.model), "params_dense": found.space.cost_model.dense[1]}


def choose(
    found: Scene, policy: Policy, seed: int
) -> Callable[[nn.Module, ChannelMap, Target], NDArray[np.bool_]]:
    """Measure a network that may be cut already, and decode the policy for it."""

    def measured(model: nn.Module, channel_map: ChannelMap) -> Measurements:
        if policy.score != "ensemble":
            return load_or_measure_scores(
                model, channel_map, found.data, folder=None, seed=seed, names=[policy.score]
            )
        ensemble = measure_ensemble(
            model,
            channel_map,
            found.data,
            ENSEMBLE,
            folder=None,
            seed=seed,
            machine=DeviceConfig(),
        )
        return add_ensemble(Measurements("", {}), "ensemble", ensemble)

    def chosen(model: nn.Module, channel_map: ChannelMap, target: Target) -> NDArray[np.bool_]:
        evidence = measured(model, channel_map)
        return decode_policy(
            policy, target, evidence, PruningSpace(channel_map, CostModel(channel_map))
        )

    return chosen


def at_once(name: str, policy: Policy, share: float, seed: int) -> dict[str, Any]:
    """One cut, then the fine-tune."""
    found = scene(name, seed)
    ask = choose(found, policy, seed)
    keep = ask(found.model, found.space.channel_map, Target(params=share))
    return with_tuning(found, keep, SETTINGS[name].tuning, seed=seed)


def in_steps(name: str, policy: Policy, share: float, seed: int) -> dict[str, Any]:
    """The same epochs, spread over the steps."""
    found, setting = scene(name, seed), SETTINGS[name]
    tuning = replace(setting.tuning, epochs=setting.tuning.epochs / STEPS)

    def settle(present: PrunedState) -> None:
        train_model(
            present.model,
            found.data,
            tuning,
            seed=100 * seed + present.step - 1,
            teacher=found.teacher,
            machine=found.machine,
        )

    present = prune_iteratively(
        found.model,
        found.space.channel_map,
        intermediate_targets(Target(params=share), found.space.cost_model.dense, STEPS),
        StepCallbacks(choose(found, policy, seed), settle),
    )
    return {**accuracies(found, present.model), **price_of(found, present.keep)}


def cells(names: list[str], seeds: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """All cells, seed by seed."""
    table: dict[str, Callable[[], dict[str, Any]]] = {}
    for seed in range(seeds):
        for name in names:
            table[f"{name} dense seed {seed}"] = partial(dense, name, seed)
            for label, policy in POLICIES.items():
                for share in SHARES:
                    ways = {"at once": at_once, "in steps": in_steps}
                    for way, run in ways.items():
                        key = f"{name} {label} {way} @ {share} seed {seed}"
                        table[key] = partial(run, name, policy, share, seed)
    return table


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=["lenet5", "fc"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-seconds", type=float)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    about = {"data": {"lenet5": "digits at 28 x 28", "fc": "MNIST"}, "torch": torch.__version__}
    fill(OUT, about, cells(asked.names, asked.seeds), max_seconds=asked.max_seconds)


if __name__ == "__main__":
    main()
