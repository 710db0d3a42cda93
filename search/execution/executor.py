"""Executors run the work around the trials: dense training, measurements, final evaluation.

`LocalExecutor` runs calls in this process. `RayExecutor` (ray_executor.py) runs them in Ray
workers, several at a time. Both take jobs with stages: see `analysis.jobs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ...analysis.jobs import StagedJob, map_calls, run_jobs_serially
from ...analysis.measure import MeasurementCall, MeasurementContext, RunJobs
from ..trial.timing import Timer
from .progress_messages import LogFunction, progress_logger

RemoteCall = Callable[[Any, LogFunction], Any]  # takes the job's argument and a logger


class Executor(Protocol):
    """Runs the calls of jobs."""

    def run(self, jobs: Sequence[StagedJob[RemoteCall]], argument: Any) -> list[Any]:
        """Pass `argument` to each call of the jobs; return the result of each job."""
        ...


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Runs calls in this process, one after the other."""

    log: LogFunction

    def run(self, jobs: Sequence[StagedJob[RemoteCall]], argument: Any) -> list[Any]:
        """Run the calls and return the result of each job."""
        return run_jobs_serially(jobs, lambda call: call(argument, self.log))


@dataclass(frozen=True, slots=True, eq=False)
class Executors:
    """Executors for the dense model and for measurements, with a logger and a timer."""

    dense: Executor
    measurements: Executor
    log: LogFunction
    timer: Timer


def local_executors(log: LogFunction) -> Executors:
    """Run everything in this process."""
    return Executors(LocalExecutor(log), LocalExecutor(log), log, Timer())


def make_measurement_runner(executor: Executor, device: str) -> RunJobs:
    """Return a function that runs measurement jobs on this executor and device."""

    def run_jobs(
        jobs: Sequence[StagedJob[MeasurementCall]], context: MeasurementContext
    ) -> list[Any]:
        calls = [map_calls(job, partial(RemoteMeasurement, device)) for job in jobs]
        return executor.run(calls, context)

    return run_jobs


@dataclass(frozen=True, slots=True, eq=False)
class RemoteMeasurement:
    """A measurement as a call that an executor runs."""

    device: str
    measurement: MeasurementCall

    @property
    def uses_folder(self) -> bool:
        """Whether it reads and writes files in the folder of the measurements."""
        return getattr(self.measurement, "uses_folder", True)

    def __call__(self, context: MeasurementContext, log: LogFunction) -> Any:
        """Move the model to the device and measure."""
        context.model.to(self.device)
        return self.measurement(context, progress_logger(log))
