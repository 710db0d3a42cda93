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

from ...analysis.measure import Do, Measuring, OfEnsemble, Task
from ...analysis.staged_jobs import Piece, changed, in_turn
from ..config.settings import SearchSettings
from ..optimizer.plugins import Plugin
from ..trial.timing import Watch
from .messages import Say, once, telling
from .ray_runtime import RayStart
from .signals import Stopping

Errand = Callable[[Any, Say], Any]


class Hands(Protocol):
    """Who runs errands."""

    def do(self, pieces: Sequence[Piece[Errand]], on: Any) -> list[Any]:
        """Run their errands with `on`, which is shipped once; what the pieces found."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """This process, one errand after the other."""

    say: Say

    def do(self, pieces: Sequence[Piece[Errand]], on: Any) -> list[Any]:
        """Run each."""
        return in_turn(pieces, lambda errand: errand(on, self.say))


@dataclass(frozen=True, slots=True, eq=False)
class Workers:
    """Ray's workers, side by side, each with what a trial gets."""

    ray_start: RayStart
    settings: SearchSettings
    root: Path
    plugins: tuple[Plugin, ...]
    stopping: Stopping
    say: Say
    watch: Watch

    def do(self, pieces: Sequence[Piece[Errand]], on: Any) -> list[Any]:
        """Run all of them; a signal is raised between two looks at them."""
        if not pieces:
            return []
        with self.stopping.shield():
            with self.watch.apart("start"):
                self.ray_start.wait()
            self.stopping.listen_again()
            from .remote_calls import Trip, run_errands

            trip = Trip(on, self.plugins, self.root)
            return run_errands(pieces, trip, self.settings, self.say, self.stopping)


@dataclass(frozen=True, slots=True, eq=False)
class Crew:
    """Whose hands the dense network and the evidence are in, who is told of it, who takes time."""

    dense: Hands
    evidence: Hands
    say: Say
    watch: Watch


def alone(say: Say) -> Crew:
    """This process does everything."""
    return Crew(Here(say), Here(say), say, Watch())


def crew_of(workers: Workers) -> Crew:
    """A local search keeps its dense network to itself."""
    local, say = workers.settings.address is None, workers.say
    measuring = replace(workers, say=once(say))
    return Crew(Here(say) if local else workers, measuring, say, workers.watch)


def measuring_by(hands: Hands, device: str) -> Do:
    """How evidence is measured by these hands, on the device that trials use."""

    def do(pieces: Sequence[Piece[Task]], on: Measuring) -> list[Any]:
        return hands.do([changed(piece, partial(Measure, device)) for piece in pieces], on)

    return do


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """The errand of measuring something of the evidence."""

    device: str
    task: Task

    @property
    def keeps_files(self) -> bool:
        """Whether it reads and writes in the evidence's folder."""
        return not isinstance(self.task, OfEnsemble)

    def __call__(self, on: Measuring, say: Say) -> Any:
        """Do it."""
        on.model.to(self.device)
        return self.task(on, telling(say))
