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
from ...trainers.metrics.evaluate import Score, evaluate
from ...trainers.pruning.bn_recalibration import recalibrate
from ...trainers.pruning.least_squares_refit import refit
from ...trainers.runtime.device import half_of
from ...trainers.training.loop import Tuning
from ..storage.trial_spec import Job
from .context import Context

LEAST_BATCH = 8  # of training
TRAIN, RECALIBRATE, EVALUATE = 128, 256, 512
RECALIBRATION_BATCHES = 16

T = TypeVar("T")


def within_memory(trial: Callable[[Context], T], context: Context) -> T:
    """What the trial returns, once its batches are small enough."""
    while True:
        try:
            return trial(context)
        except (MemoryError, RuntimeError) as error:
            half_of(TRAIN >> context.halvings, error, least=LEAST_BATCH)
            context = replace(context, halvings=context.halvings + 1)


def tuning_of(policy: Policy, epochs: float, context: Context) -> Tuning:
    """The brief fine-tune that the policy asks for."""
    return Tuning(
        epochs=epochs,
        learning_rate=policy.learning_rate / 2**context.halvings,
        distill=policy.distill,
        batch_size=TRAIN >> context.halvings,
    )


def settle_norms(model: nn.Module, context: Context) -> None:
    """Recalibrate the batch norms of a network that was cut or trained."""
    halvings = context.halvings
    recalibrate(
        model,
        context.data,
        batches=RECALIBRATION_BATCHES << halvings,
        batch_size=RECALIBRATE >> halvings,
        machine=context.machine,
    )


def refit_to_dense(model: nn.Module, keep: NDArray[np.bool_], context: Context) -> None:
    """Refit a network that was cut to a mask; its norms are to be settled afterwards."""
    refit(
        model,
        context.model,
        context.space.channel_map,
        keep,
        context.data,
        machine=context.machine,
        images=EVALUATE >> context.halvings,
    )


def score_of(model: nn.Module, context: Context) -> Score:
    """How good a network is on validation."""
    data, batch = context.data, EVALUATE >> context.halvings
    return evaluate(model, data.validation, data, batch_size=batch, machine=context.machine)


def checkpoint_of(job: Job, context: Context, name: str) -> Path:
    """Where a schedule keeps its steps; those of other batches are not gone on from."""
    halved = f"half-{context.halvings}-" if context.halvings else ""
    return context.root / "trials" / job.folder / f"{halved}{name}"
