"""The bench: one contender's budget, its fine-tunes in worker processes, what came of them."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.scene import Scene
from benchmarks.search.figures import Point, front_of
from benchmarks.search.rows import counting
from benchmarks.search.rules import Rules
from benchmarks.search.worker import Task, Tuned, settle, tune
from paretoprune.search.optimizer.plan import trial_seed
from paretoprune.trainers.metrics.evaluate import evaluate


@dataclass(slots=True, eq=False)
class Bench:
    """A contender asks `has_room`, then offers a candidate; the budget is kept here.

    `folder` is empty and the cell's own. Time runs from the making of the record.
    """

    scene: Scene
    rules: Rules
    seed: int
    folder: Path
    begin: float = field(default_factory=time.monotonic)
    ended: float | None = None  # set by `end`
    scored: int = 0  # images seen by the contender's own measurements
    trained: float = 0.0  # images of fine-tunes
    longest: float = 0.0  # seconds of a fine-tune
    failures: list[str] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    _resident: Any = None
    _pool: ProcessPoolExecutor | None = None
    _running: dict[Future[Tuned], tuple[str, Task]] = field(default_factory=dict)
    _finished: dict[str, tuple[Task, Tuned]] = field(default_factory=dict)  # by label

    @property
    def elapsed(self) -> float:
        """Seconds so far; once the contender has ended, those that it took."""
        return (self.ended or time.monotonic()) - self.begin

    def end(self) -> None:
        """Stop the clock, unless it was stopped: what follows is not the contender's."""
        self.ended = self.ended or time.monotonic()

    @property
    def trial_images(self) -> float:
        """Images that one fine-tune is trained on."""
        return self.rules.epochs * len(self.scene.data.train)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Count the images that are run through networks here."""

        def add(rows: int) -> None:
            self.scored += rows

        with counting(add):
            yield

    def has_room(self) -> bool:
        """Wait for a free worker; True if the budget has room for one more fine-tune.

        In wall time: if one as long as the longest so far would end in time.
        """
        while len(self._running) >= self.rules.workers:
            self._collect()
        if self.rules.table == "images":
            running = len(self._running) * self.trial_images
            spent = self.scored + self.trained + running
            return spent + self.trial_images <= self.rules.images
        return self.elapsed + self.longest <= 60 * self.rules.minutes

    def offer(self, label: str, task: Task, resident: Any) -> None:
        """Fine-tune a candidate; all tasks of a contender share one resident."""
        label = f"{label} #{self.offered}"
        if self._pool is None:
            self._resident = resident
            self._pool = ProcessPoolExecutor(
                self.rules.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=settle,
                initargs=(pickle.dumps(resident),),
            )
        self._running[self._pool.submit(tune, pickle.dumps(task))] = (label, task)

    def settled(self) -> list[Point]:
        """Wait for all that runs; every point so far."""
        while self._running:
            self._collect()
        return self.points

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def front(self) -> list[Point]:
        """The front by validation of all candidates, each point measured on test, once."""
        front = front_of(self.settled())
        return [self._measured(point) for point in front]

    @property
    def offered(self) -> int:
        """Candidates so far."""
        return len(self._finished) + len(self._running) + len(self.failures)

    @property
    def tuning_seed(self) -> int:
        """The seed of every fine-tune: that of our search's trials."""
        return trial_seed(self.seed)

    def _measured(self, point: Point) -> Point:
        if point.test is not None:
            return point
        task, tuned = self._finished[point.label]
        network = task.read(tuned, self._resident)
        data = self.scene.data
        assert data.test is not None
        score = evaluate(network, data.test, data, machine=self.scene.machine)
        return replace(point, test=score.accuracy)

    def _collect(self) -> None:
        """Take what is finished; a fine-tune that failed has spent its images too."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            label, task = self._running.pop(future)
            error = future.exception()
            if error is not None:
                self.failures.append(f"{label}: {type(error).__name__}: {error}"[:200])
                self.trained += self.trial_images
                continue
            tuned = future.result()
            self.trained += tuned.epochs * len(self.scene.data.train)
            self.longest = max(self.longest, tuned.seconds)
            self.points.append(Point(label, tuned.flops, tuned.validation))
            self._finished[label] = (task, tuned)
