"""Batch sizes of a trial: it starts again with half of them when it runs out of memory.

All batch sizes of a trial are halved together, whichever step ran out of memory, so the result
depends only on the number of halvings. The learning rate is halved with the batch size, and the
trial sees the same images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ...spaces.policy.policy import Policy
from ...trainers.metrics.evaluate import ClassificationMetrics, evaluate
from ...trainers.pruning.bn_recalibration import recalibrate_batch_norm
from ...trainers.pruning.least_squares_refit import refit_least_squares
from ...trainers.runtime.device import halve_batch
from ...trainers.training.optimizer import TrainingSettings
from ..storage.trial_spec import TrialSpec
from .context import TrialContext

MIN_TRAIN_BATCH_SIZE = 8
TRAIN_BATCH_SIZE, RECALIBRATION_BATCH_SIZE, EVALUATION_BATCH_SIZE = 128, 256, 512
RECALIBRATION_BATCH_COUNT = 16

T = TypeVar("T")


def retry_with_smaller_batches(trial: Callable[[TrialContext], T], context: TrialContext) -> T:
    """Run the trial, again with halved batch sizes until they fit into memory."""
    while True:
        try:
            return trial(context)
        except (MemoryError, RuntimeError) as error:
            halve_batch(
                TRAIN_BATCH_SIZE >> context.batch_halvings, error, min_batch=MIN_TRAIN_BATCH_SIZE
            )
            context = replace(context, batch_halvings=context.batch_halvings + 1)


def fine_tune_settings(policy: Policy, epochs: float, context: TrialContext) -> TrainingSettings:
    """Return the training settings of the fine-tune of a policy."""
    return TrainingSettings(
        epochs=epochs,
        learning_rate=policy.learning_rate / 2**context.batch_halvings,
        distill=policy.distill,
        batch_size=TRAIN_BATCH_SIZE >> context.batch_halvings,
    )


def recalibrate_norms(model: nn.Module, context: TrialContext) -> None:
    """Recalibrate the batch norms of a model that was pruned or trained."""
    halvings = context.batch_halvings
    recalibrate_batch_norm(
        model,
        context.data,
        batches=RECALIBRATION_BATCH_COUNT << halvings,
        batch_size=RECALIBRATION_BATCH_SIZE >> halvings,
        machine=context.machine,
    )


def refit_to_dense(model: nn.Module, keep: NDArray[np.bool_], context: TrialContext) -> None:
    """Refit a pruned model by least squares; recalibrate its batch norms afterwards."""
    refit_least_squares(
        model,
        context.model,
        context.space.channel_map,
        keep,
        context.data,
        machine=context.machine,
        images=EVALUATION_BATCH_SIZE >> context.batch_halvings,
    )


def validation_metrics(model: nn.Module, context: TrialContext) -> ClassificationMetrics:
    """Evaluate a model on the validation split."""
    data, batch = context.data, EVALUATION_BATCH_SIZE >> context.batch_halvings
    return evaluate(model, data.validation, data, batch_size=batch, machine=context.machine)


def checkpoint_path(spec: TrialSpec, context: TrialContext, name: str) -> Path:
    """Return the path of a schedule's checkpoint; each number of halvings has its own."""
    prefix = f"half-{context.batch_halvings}-" if context.batch_halvings else ""
    return context.root / "trials" / spec.folder / f"{prefix}{name}"
