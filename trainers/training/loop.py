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

from ..data.types import Data
from ..runtime.device import Machine
from .distillation import Teacher
from .optimizer import Tuning
from .session import Diverged, Guidance, Session

__all__ = ["Diverged", "Guidance", "Progress", "Session", "TrainLog", "Tuning", "train"]


@dataclass(frozen=True, slots=True)
class Progress:
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
class TrainLog:
    """What a run did, on which machine settings, and why it ended."""

    steps: int
    epochs: float
    seconds: float
    reading_seconds: float
    images: int
    history: tuple[Progress, ...]
    machine: Machine
    ended: Literal["finished", "stopped", "max_seconds"]


def train(
    model: nn.Module,
    data: Data,
    tuning: Tuning,
    *,
    seed: int,
    teacher: Teacher | None = None,
    on_epoch: Callable[[Progress], bool] | None = None,
    machine: Machine | None = None,
) -> TrainLog:
    """Train the given model in place; `on_epoch` returning False ends the run early."""
    session = Session(
        model, data, tuning, seed=seed, guidance=Guidance(teacher=teacher), machine=machine
    )
    return run(session, on_epoch)


def run(session: Session, on_epoch: Callable[[Progress], bool] | None = None) -> TrainLog:
    """Advance a session from report to report until it is finished, stopped or out of time."""
    begin = time.perf_counter()
    first = session.step
    history: list[Progress] = []
    ended: Literal["finished", "stopped", "max_seconds"] = "finished"
    while session.step < session.total:
        goal = report_steps(session)[0]  # anew each time: a report may change the total
        if not session.advance(goal, begin=begin):
            ended = "max_seconds"
        history.append(progress_of(session, first, time.perf_counter() - begin))
        if ended == "max_seconds":
            break
        if on_epoch is not None and on_epoch(history[-1]) is False and goal < session.total:
            ended = "stopped"
            break
    session.finish()
    return TrainLog(
        steps=session.step,
        epochs=session.epoch,
        seconds=time.perf_counter() - begin,
        reading_seconds=session.reading_seconds,
        images=(session.step - first) * session.batch_size,
        history=tuple(history),
        machine=session.machine,
        ended=ended,
    )


def report_steps(session: Session) -> list[int]:
    """The steps still ahead after which there is a report: epoch ends, asked points, the end."""
    each = session.steps_per_epoch
    ends = range(each, session.total, each)
    asked = (round(point * each) for point in session.tuning.reports)
    goals = {*ends, *asked, session.total}
    return sorted(goal for goal in goals if session.step < goal <= session.total)


def progress_of(session: Session, first: int, seconds: float) -> Progress:
    """Where a session that began at step `first` stands after so many seconds."""
    loss, accuracy = session.take_means()
    remaining = seconds / max(1, session.step - first) * (session.total - session.step)
    return Progress(
        step=session.step,
        steps=session.total,
        epoch=session.epoch,
        loss=loss,
        accuracy=accuracy,
        learning_rate=session.rate,
        seconds=seconds,
        remaining=remaining,
    )
