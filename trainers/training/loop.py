"""One loop for training and fine-tuning: `train` runs a `Session` to its end, with reports.

A `Session` is the same loop by hand: advance it to any step, save its state, go on later. Each
epoch draws its order, its augmentation and its dropout from (seed, epoch) alone, so a session that
is taken up at an epoch's start continues bit for bit.
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
    """Where a run stands; loss and accuracy are means over the steps since the last report.

    `seconds` counts this launch only, `remaining` foretells the rest at its pace.
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
    """What a run did, on which machine settings, and why it ended."""

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
    """Train the given model in place; `on_epoch` returning False ends the run early."""
    session = TrainingSession(
        model, data, tuning, seed=seed, guidance=AuxiliaryLosses(teacher=teacher), machine=machine
    )
    return run_session(session, on_epoch)


def run_session(
    session: TrainingSession, on_epoch: Callable[[TrainingProgress], bool] | None = None
) -> TrainingLog:
    """Advance a session from report to report until it is finished, stopped or out of time."""
    begin = time.perf_counter()
    first = session.step
    history: list[TrainingProgress] = []
    ended: Literal["finished", "stopped", "max_seconds"] = "finished"
    while session.step < session.total_steps:
        goal = report_steps(session)[0]  # anew each time: a report may change the total
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
    """The steps still ahead after which there is a report: epoch ends, asked points, the end."""
    each = session.steps_per_epoch
    ends = range(each, session.total_steps, each)
    asked = (round(point * each) for point in session.tuning.reports)
    goals = {*ends, *asked, session.total_steps}
    return sorted(goal for goal in goals if session.step < goal <= session.total_steps)


def training_progress(session: TrainingSession, first: int, seconds: float) -> TrainingProgress:
    """Where a session that began at step `first` stands after so many seconds."""
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
