"""The crew: who does the heavy work around the trials, this process or Ray's workers.

A local search trains and judges its dense network in the driver, while Ray starts, and measures
its evidence on all workers side by side. On a cluster, whose driver may sit on a node without a
GPU, workers do all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...analysis.jobs import StagedJob, map_calls, run_jobs_serially
from ...analysis.measure import EnsembleStepCall, MeasurementCall, MeasurementContext, RunJobs
from ..config.settings import SearchSettings
from ..optimizer.plugins import Plugin
from ..trial.timing import Timer
from .messages import LogFunction, log_starts_once, progress_logger
from .ray_runtime import RayRuntime
from .signals import SignalHandler

RemoteCall = Callable[[Any, LogFunction], Any]


class Executor(Protocol):
    """Who runs errands."""

    def run(self, jobs: Sequence[StagedJob[RemoteCall]], argument: Any) -> list[Any]:
        """Run their errands with `on`, which is shipped once; what the pieces found."""
        ...


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """This process, one errand after the other."""

    log: LogFunction

    def run(self, jobs: Sequence[StagedJob[RemoteCall]], argument: Any) -> list[Any]:
        """Run each."""
        return run_jobs_serially(jobs, lambda errand: errand(argument, self.log))


@dataclass(frozen=True, slots=True, eq=False)
class RayExecutor:
    """Ray's workers, side by side, each with what a trial gets."""

    ray_runtime: RayRuntime
    settings: SearchSettings
    root: Path
    plugins: tuple[Plugin, ...]
    signals: SignalHandler
    log: LogFunction
    timer: Timer

    def run(self, jobs: Sequence[StagedJob[RemoteCall]], argument: Any) -> list[Any]:
        """Run all of them; a signal is raised between two looks at them."""
        if not jobs:
            return []
        with self.signals.shield():
            with self.timer.separately("start"):
                self.ray_runtime.wait()
            self.signals.reinstall()
            from .remote_calls import RemoteCallContext, run_remote_calls

            trip = RemoteCallContext(argument, self.plugins, self.root)
            return run_remote_calls(jobs, trip, self.settings, self.log, self.signals)


@dataclass(frozen=True, slots=True, eq=False)
class Executors:
    """Whose hands the dense network and the evidence are in, who is told of it, who takes time."""

    dense: Executor
    measurements: Executor
    log: LogFunction
    timer: Timer


def local_executors(log: LogFunction) -> Executors:
    """This process does everything."""
    return Executors(LocalExecutor(log), LocalExecutor(log), log, Timer())


def executors_for(ray_executor: RayExecutor) -> Executors:
    """A local search keeps its dense network to itself."""
    local, say = ray_executor.settings.address is None, ray_executor.log
    measuring = replace(ray_executor, log=log_starts_once(say))
    return Executors(
        LocalExecutor(say) if local else ray_executor, measuring, say, ray_executor.timer
    )


def make_measurement_runner(executor: Executor, device: str) -> RunJobs:
    """How evidence is measured by these hands, on the device that trials use."""

    def do(pieces: Sequence[StagedJob[MeasurementCall]], on: MeasurementContext) -> list[Any]:
        return executor.run(
            [map_calls(piece, partial(RemoteMeasurement, device)) for piece in pieces], on
        )

    return do


@dataclass(frozen=True, slots=True, eq=False)
class RemoteMeasurement:
    """The errand of measuring something of the evidence."""

    device: str
    measurement: MeasurementCall

    @property
    def uses_folder(self) -> bool:
        """Whether it reads and writes in the evidence's folder."""
        return not isinstance(self.measurement, EnsembleStepCall)

    def __call__(self, context: MeasurementContext, log: LogFunction) -> Any:
        """Do it."""
        context.model.to(self.device)
        return self.measurement(context, progress_logger(log))
