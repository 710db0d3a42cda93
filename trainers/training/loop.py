"""The loop for training and fine-tuning: `train_model` runs a `TrainingSession` to its end.

A `TrainingSession` can also be advanced to any step, saved and continued later. The order and the
augmentation of an epoch depend on (seed, epoch) only, and dropout on (seed, step) only, so a
resumed session gives the same weights, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from ..data.splits import DataSplits
from ..runtime.device import DeviceConfig
from .distillation import Teacher
from .optimizer import TrainingSettings
from .session import AuxiliaryLosses, TrainingSession


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """The state of a run. Loss and accuracy are means over the steps since the last report.

    `seconds` counts this process only; `remaining` extrapolates its pace to the last step.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    remaining: float


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """A summary of a run: steps, times, progress reports, configuration and why it ended."""

    steps: int
    epochs: float
    seconds: float
    reading_seconds: float
    images: int
    history: tuple[TrainingProgress, ...]
    machine: DeviceConfig
    ended: Literal["finished", "stopped", "max_seconds"]


def train_model(
    model: nn.Module,
    data: DataSplits,
    tuning: TrainingSettings,
    *,
    seed: int,
    teacher: Teacher | None = None,
    on_epoch: Callable[[TrainingProgress], bool] | None = None,
    machine: DeviceConfig | None = None,
) -> TrainingLog:
    """Train a model in place.

    Args:
        model: The network to train.
        data: The splits; only train is used.
        tuning: How to train.
        seed: Determines the order, the augmentation and dropout.
        teacher: The teacher of the distillation; None: no distillation.
        on_epoch: Called with the progress at every report; False ends the run.
        machine: Device and precision; None: the fastest here.

    Example:
        >>> log = train_model(model, data, TrainingSettings(epochs=2), seed=0)
    """
    session = TrainingSession(
        model, data, tuning, seed=seed, guidance=AuxiliaryLosses(teacher=teacher), machine=machine
    )
    return run_session(session, on_epoch)


def run_session(
    session: TrainingSession, on_epoch: Callable[[TrainingProgress], bool] | None = None
) -> TrainingLog:
    """Advance a session from report to report until it is finished, stopped or out of time.

    Args:
        session: The session to run.
        on_epoch: Called with the progress at every report; False ends the run.
    """
    begin = time.perf_counter()
    first = session.step
    history: list[TrainingProgress] = []
    ended: Literal["finished", "stopped", "max_seconds"] = "finished"
    while session.step < session.total_steps:
        goal = report_steps(session)[0]  # computed each time: a report may change total_steps
        if not session.advance(goal, begin=begin):
            ended = "max_seconds"
        history.append(training_progress(session, first, time.perf_counter() - begin))
        if ended == "max_seconds":
            break
        if on_epoch is not None and on_epoch(history[-1]) is False and goal < session.total_steps:
            ended = "stopped"
            break
    session.finish()
    return TrainingLog(
        steps=session.step,
        epochs=session.epoch,
        seconds=time.perf_counter() - begin,
        reading_seconds=session.reading_seconds,
        images=(session.step - first) * session.batch_size,
        history=tuple(history),
        machine=session.machine,
        ended=ended,
    )


def report_steps(session: TrainingSession) -> list[int]:
    """The remaining steps with a report: epoch ends, `tuning.reports` and the last step."""
    per_epoch = session.steps_per_epoch
    epoch_ends = range(per_epoch, session.total_steps, per_epoch)
    requested = (round(epoch * per_epoch) for epoch in session.tuning.reports)
    steps = {*epoch_ends, *requested, session.total_steps}
    return sorted(step for step in steps if session.step < step <= session.total_steps)


def training_progress(session: TrainingSession, first: int, seconds: float) -> TrainingProgress:
    """The progress of a session that started at step `first`, `seconds` ago."""
    loss, accuracy = session.pop_means()
    remaining = seconds / max(1, session.step - first) * (session.total_steps - session.step)
    return TrainingProgress(
        step=session.step,
        steps=session.total_steps,
        epoch=session.epoch,
        loss=loss,
        accuracy=accuracy,
        learning_rate=session.current_learning_rate,
        seconds=seconds,
        remaining=remaining,
    )
