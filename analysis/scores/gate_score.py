"""Score `gates`: the values of gates that were trained under a FLOPs budget.

Gates and a copy of the weights are trained until half of the removable FLOPs are removed, with the
budget allocation of Enderich et al. 2021. The weights are discarded; the gate values are scores.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import nn

from ...spaces.allocations.decode import PruningSpace
from ...spaces.allocations.ordering import PolicyScorer
from ...spaces.cost.cost import CostModel
from ...spaces.cost.target import Target
from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.layer_scores import as_layer_scores
from ...spaces.policy.loss_curves import removal_positions
from ...spaces.policy.measurements import Measurements, save_arrays, scores_to_arrays
from ...spaces.policy.policy import POLICY_PRESETS
from ...trainers.data.splits import DataSplits
from ...trainers.pruning.gates.network import GATE_LIMIT
from ...trainers.pruning.gates.settings import GateSettings, GateTrainingSpec
from ...trainers.pruning.gates.trainer import train_gates
from ...trainers.runtime.device import device_config_for
from ...trainers.training.distillation import Teacher
from ...trainers.training.loop import TrainingProgress
from ...trainers.training.optimizer import TrainingSettings
from .calibration_pass import OnImagesDone
from .measure import digest_texts, load_or_measure_scores, load_scores, measurement_key

GATE_SCORE = "gates"
TRAINING_IMAGES = 32_768  # default number of training images
INITIAL_POLICY = POLICY_PRESETS["holistic"]  # its score initializes the order of the gates
REPORT_COUNT = 20


def load_or_train_gate_score(
    model: nn.Module,
    channel_map: ChannelMap,
    data: DataSplits,
    *,
    folder: Path | None,
    seed: int,
    images: int | None = None,
    on_progress: OnImagesDone | None = None,
) -> Measurements:
    """Read the score from the folder, or train it, resuming an interrupted training."""
    space, images = PruningSpace(channel_map, CostModel(channel_map)), images or TRAINING_IMAGES
    settings = gate_score_settings(images / len(data.train))
    target = half_flops_target(space, settings.floor)
    base = measurement_key(model, channel_map, data, data.train, seed)
    key = digest_texts((base, GATE_SCORE, repr(asdict(settings)), repr(target)))
    known = load_scores({GATE_SCORE: key}, folder) if folder else {}
    if known:
        return Measurements(key, known)
    taylor = load_or_measure_scores(
        model, channel_map, data, folder=folder, seed=seed, names=[INITIAL_POLICY.score]
    )
    (scores,) = PolicyScorer(taylor, channel_map, space.cost_model).scores([INITIAL_POLICY])
    checkpoint = folder / f"{key}.{GATE_SCORE}.safetensors" if folder else None

    def report(progress: TrainingProgress) -> bool:
        if on_progress is not None:
            on_progress(round(progress.epoch * len(data.train)), images)
        return True

    machine = device_config_for(model, data.input_shape)
    gated = train_gates(
        model,
        data,
        GateTrainingSpec(space, target, settings, scores, seed),
        teacher=Teacher(model, machine),
        machine=machine,
        checkpoint=checkpoint,
        on_report=report,
    )
    found = {GATE_SCORE: as_layer_scores(gated.values + GATE_LIMIT)}
    if folder and checkpoint:
        save_arrays(key, scores_to_arrays(found), folder)
        checkpoint.unlink(missing_ok=True)
    return Measurements(key, found, counts={**taylor.counts, "trained": gated.log.images})


def gate_score_settings(epochs: float) -> GateSettings:
    """Gate settings without pruning during training, so that every gate keeps its value."""
    reports = tuple(epochs * k / REPORT_COUNT for k in range(1, REPORT_COUNT))
    tuning = TrainingSettings(epochs=epochs, reports=reports)
    return GateSettings(tuning, floor=INITIAL_POLICY.floor, shrink_every=None)


def half_flops_target(space: PruningSpace, floor: int) -> Target:
    """The target that removes half of the removable FLOPs."""
    channel_map = space.channel_map
    sizes = np.bincount(channel_map.group_of)[channel_map.group_of]
    kept = removal_positions(np.zeros(channel_map.atoms), channel_map) > sizes - floor
    least, _ = space.cost_model.cost_fractions(kept)
    return Target(flops=round((1 + float(least)) / 2, 4))
