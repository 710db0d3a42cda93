"""The scene of a benchmark: a trained dense network, its data, its channel map and its price.

`baseline("resnet20")` is the network that `python -m benchmarks.baseline` trained: its sha256 and
its accuracy go into every results file, so that no table mixes two of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks import cifar_jpeg
from paretoprune.spaces.allocations.decode import PruningSpace
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.data.cache import cache_folder
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.models.weights import load_weights
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.least_squares_refit import refit_least_squares
from paretoprune.trainers.pruning.surgery import prune_network
from paretoprune.trainers.runtime.device import DeviceConfig, detect_device_config
from paretoprune.trainers.training.distillation import LOGITS_CACHE_BYTES, Teacher
from paretoprune.trainers.training.loop import train_model
from paretoprune.trainers.training.optimizer import TrainingSettings
from paretoprune.trainers.training.train_dense import (
    DenseBaseline,
    DenseTrainingSpec,
    file_sha256,
    read_baseline,
    train_dense_baseline,
)

KEPT = Path(__file__).parent / "networks"
FROM_SCRATCH = ("resnet20", "vgg16-short", "resnet110-short")
WHOLE, HALVED = (
    "validation cut from train, test whole",
    "half of the test images choose, the other half report",
)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a benchmark prunes, and what its results must say of it."""

    model: nn.Module
    data: DataSplits
    space: PruningSpace
    machine: DeviceConfig
    teacher: Teacher
    about: dict[str, Any]

    @property
    def architecture(self) -> str:
        """The network's name in the model zoo: `resnet56` of the baseline `resnet56-brief`."""
        return str(self.about["network"]).partition("-")[0]


def baseline_folder() -> Path:
    """Where the baselines lie: PARETOPRUNE_BASELINES, else the cache."""
    return Path(os.environ.get("PARETOPRUNE_BASELINES", cache_folder() / "baselines"))


def baseline_path(name: str) -> Path:
    """Where the weights of a baseline are: trained here, else those that lie beside this file."""
    trained = baseline_folder() / f"{name}.safetensors"
    kept = KEPT / trained.name
    return kept if kept.exists() and not trained.exists() else trained


def baseline(name: str, keep: tuple[str, ...] = ()) -> Scene:
    """The trained network of this name (`-brief`, `-short`: in few epochs), its splits clean."""
    torch.set_num_threads(1)
    path = baseline_path(name)
    found = read_baseline(path)
    if found is None:
        raise SystemExit(
            f"no baseline at {path}; make it with python -m benchmarks.baseline {name}"
        )
    clean = name in FROM_SCRATCH
    data = cifar_jpeg.whole() if clean else cifar_jpeg.halved()
    about = {
        "network": name,
        "baseline_sha256": found.sha256,
        "dense": {
            "validation": found.validation.accuracy,
            "test": found.test.accuracy if found.test else None,
        },
        "data": "CIFAR-10 (JPEG q75)",
        "splits": WHOLE if clean else HALVED,
    }
    return scene_of(name.partition("-")[0], path, data, about, keep)


def digits_baseline(seed: int) -> DenseBaseline:
    """A small network on scikit-learn's digits, trained in seconds under a seed, once."""
    path = baseline_folder() / f"digits-resnet-{seed}.safetensors"
    tuning = TrainingSettings(epochs=31.0, learning_rate=0.1, warmup=0.1, batch_size=64)
    job = DenseTrainingSpec(
        "digits-resnet", "digits", path, tuning=tuning, seed=seed, machine=DeviceConfig()
    )
    return train_dense_baseline(job)


def digits(seed: int) -> Scene:
    """That network, and the digits: for what needs many seeds more than hard images."""
    torch.set_num_threads(1)
    found = digits_baseline(seed)
    assert found.test is not None
    about = {
        "network": "digits-resnet",
        "baseline_sha256": found.sha256,
        "dense": {"validation": found.validation.accuracy, "test": found.test.accuracy},
        "data": "digits",
        "splits": "validation cut from train",
    }
    return scene_of("digits-resnet", found.path, load_data("digits"), about, ())


def published_resnet20() -> Scene:
    """The published weights as they are, with only block-internal channels free: the peers' task.

    They saw all of train, so nothing may be chosen on a split of it; all test images report.
    """
    torch.set_num_threads(1)
    path = cifar_jpeg.weights_folder() / "resnet20-12fca82f.th"
    data = replace(cifar_jpeg.whole(), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    about = {
        "network": "resnet20, published weights",
        "baseline_sha256": file_sha256(path),
        "data": "CIFAR-10 (JPEG q75)",
        "splits": "calibration from train; the whole test split reports, nothing is chosen",
        "free": "channels within blocks",
    }
    keep = ("conv1", "layer*.*.conv2")
    return scene_of("resnet20", path, data, about, keep)


def scene_of(
    name: str, weights: Path, data: DataSplits, about: dict[str, Any], keep: tuple[str, ...]
) -> Scene:
    """Build, load, trace and price."""
    model = build_model(name, classes=data.classes, input_shape=data.input_shape, seed=0)
    load_weights(model, weights)
    copy, _ = make_working_copy(model.eval())
    channel_map = trace_channel_map(copy, data.input_shape, keep=keep)
    machine = detect_device_config(copy, data.input_shape)
    space = PruningSpace(channel_map, CostModel(channel_map))
    teacher = Teacher(copy, machine, memory=LOGITS_CACHE_BYTES)
    return Scene(copy, data, space, machine, teacher, {**about, "torch": torch.__version__})


def small_network(
    scene: Scene, keep: NDArray[np.bool_], *, pull: float | None = None
) -> nn.Module:
    """The network cut to a mask, refitted with this pull if one is given, and recalibrated."""
    data, machine, channel_map = scene.data, scene.machine, scene.space.channel_map
    small = prune_network(scene.model, channel_map, keep)
    if pull is not None:
        refit_least_squares(
            small, scene.model, channel_map, keep, data, machine=machine, ridge_strength=pull
        )
    recalibrate_batch_norm(small, data, machine=machine)
    return small


def without_tuning(scene: Scene, keep: NDArray[np.bool_], *, raw: bool) -> dict[str, float]:
    """Validation and test accuracy of the cut network: raw if asked, and recalibrated."""
    data, machine = scene.data, scene.machine
    found: dict[str, float] = {}
    if raw:
        small = prune_network(scene.model, scene.space.channel_map, keep)
        found["raw_validation"] = evaluate(small, data.validation, data, machine=machine).accuracy
    return {**found, **accuracies(scene, small_network(scene, keep)), **price_of(scene, keep)}


def with_tuning(
    scene: Scene, keep: NDArray[np.bool_], tuning: TrainingSettings, *, seed: int
) -> dict[str, float]:
    """Validation and test accuracy after cut, recalibration and a fine-tune."""
    small = small_network(scene, keep)
    train_model(small, scene.data, tuning, seed=seed, teacher=scene.teacher, machine=scene.machine)
    return {**accuracies(scene, small), **price_of(scene, keep)}


def accuracies(scene: Scene, small: nn.Module) -> dict[str, float]:
    """Validation and test accuracy of a network as it is."""
    data, machine = scene.data, scene.machine
    found = {"validation": evaluate(small, data.validation, data, machine=machine).accuracy}
    if data.test is not None:
        found["test"] = evaluate(small, data.test, data, machine=machine).accuracy
    return found


def price_of(scene: Scene, keep: NDArray[np.bool_]) -> dict[str, float]:
    """What the mask costs, as fractions."""
    macs, params = scene.space.cost_model.cost_fractions(keep)
    return {"flops": round(macs, 4), "params": round(params, 4)}
