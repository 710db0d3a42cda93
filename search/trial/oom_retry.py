"""How many images a trial runs at once: where memory runs out, it begins again with half as many.

All batches of a trial are halved together, whatever it was doing: so its result depends on how
often that was, not on where. A step size goes with its batch, and the same images are seen.
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

MIN_TRAIN_BATCH_SIZE = 8  # of training
TRAIN_BATCH_SIZE, RECALIBRATION_BATCH_SIZE, EVALUATION_BATCH_SIZE = 128, 256, 512
RECALIBRATION_BATCH_COUNT = 16

T = TypeVar("T")


def retry_with_smaller_batches(trial: Callable[[TrialContext], T], context: TrialContext) -> T:
    """What the trial returns, once its batches are small enough."""
    while True:
        try:
            return trial(context)
        except (MemoryError, RuntimeError) as error:
            halve_batch(
                TRAIN_BATCH_SIZE >> context.batch_halvings, error, min_batch=MIN_TRAIN_BATCH_SIZE
            )
            context = replace(context, batch_halvings=context.batch_halvings + 1)


def fine_tune_settings(policy: Policy, epochs: float, context: TrialContext) -> TrainingSettings:
    """The brief fine-tune that the policy asks for."""
    return TrainingSettings(
        epochs=epochs,
        learning_rate=policy.learning_rate / 2**context.batch_halvings,
        distill=policy.distill,
        batch_size=TRAIN_BATCH_SIZE >> context.batch_halvings,
    )


def recalibrate_norms(model: nn.Module, context: TrialContext) -> None:
    """Recalibrate the batch norms of a network that was cut or trained."""
    halvings = context.batch_halvings
    recalibrate_batch_norm(
        model,
        context.data,
        batches=RECALIBRATION_BATCH_COUNT << halvings,
        batch_size=RECALIBRATION_BATCH_SIZE >> halvings,
        machine=context.machine,
    )


def refit_to_dense(model: nn.Module, keep: NDArray[np.bool_], context: TrialContext) -> None:
    """Refit a network that was cut to a mask; its norms are to be settled afterwards."""
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
    """How good a network is on validation."""
    data, batch = context.data, EVALUATION_BATCH_SIZE >> context.batch_halvings
    return evaluate(model, data.validation, data, batch_size=batch, machine=context.machine)


def checkpoint_path(spec: TrialSpec, context: TrialContext, name: str) -> Path:
    """Where a schedule keeps its steps; those of other batches are not gone on from."""
    halved = f"half-{context.batch_halvings}-" if context.batch_halvings else ""
    return context.root / "trials" / spec.folder / f"{halved}{name}"
