"""The crew: who does the heavy work around the trials, this process or Ray's workers.

A local search trains and judges its dense network in the driver, while Ray starts, and measures
its evidence on all workers side by side. On a cluster, whose driver may sit on a node without a
GPU, workers do all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..analysis.gathering import Do, Measuring, Task
from .local_ray import RayStart
from .plugins import Plugin
from .settings import SearchSettings
from .stopping import Stopping
from .telling import Say, telling

Errand = Callable[[Any, Say], Any]


class Hands(Protocol):
    """Who runs errands."""

    def begin(self) -> None:
        """There will be errands: get ready beside what is done meanwhile."""
        ...

    def do(self, errands: Sequence[Errand], on: Any) -> list[Any]:
        """Run each with `on`, which is shipped once; what came of them, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """This process, one errand after the other."""

    say: Say

    def begin(self) -> None:
        """Nothing has to be started."""

    def do(self, errands: Sequence[Errand], on: Any) -> list[Any]:
        """Run each."""
        return [errand(on, self.say) for errand in errands]


@dataclass(frozen=True, slots=True, eq=False)
class Workers:
    """Ray's workers, side by side, each with what a trial gets."""

    ray_start: RayStart
    settings: SearchSettings
    root: Path
    plugins: tuple[Plugin, ...]
    stopping: Stopping
    say: Say

    def begin(self) -> None:
        """Start Ray."""
        self.ray_start.begin()

    def do(self, errands: Sequence[Errand], on: Any) -> list[Any]:
        """Run all of them; a signal is raised between two looks at them."""
        if not errands:
            return []
        with self.stopping.shield():
            self.ray_start.wait()
            self.stopping.listen_again()
            from .errands import Trip, run_errands

            trip = Trip(on, self.plugins, self.root)
            return run_errands(errands, trip, self.settings, self.say, self.stopping)


@dataclass(frozen=True, slots=True, eq=False)
class Crew:
    """Whose hands the dense network and the evidence are in, and who is told of it."""

    dense: Hands
    evidence: Hands
    say: Say


def alone(say: Say) -> Crew:
    """This process does everything."""
    return Crew(Here(say), Here(say), say)


def crew_of(workers: Workers) -> Crew:
    """A local search keeps its dense network to itself."""
    local, say = workers.settings.address is None, workers.say
    return Crew(Here(say) if local else workers, workers, say)


def measuring_by(hands: Hands, device: str) -> Do:
    """How evidence is measured by these hands, on the device that trials use."""

    def do(tasks: Sequence[Task], on: Measuring) -> list[Any]:
        return hands.do([partial(measure, task, device) for task in tasks], on)

    return do


def measure(task: Task, device: str, on: Measuring, say: Say) -> Any:
    """One piece of the evidence."""
    on.model.to(device)
    return task(on, telling(say))
