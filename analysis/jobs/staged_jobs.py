"""Jobs that run in stages: the calls of one stage are independent, so any worker may run them.

A job is a generator. It yields the calls of its next stage, receives their results in the same
order, and so on; the value that it returns is the job's result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")
StagedJob = Generator[Sequence[T], list[Any], Any]


@dataclass(frozen=True, slots=True)
class PendingCall(Generic[T]):
    """A call, the index of its job, and its position within the job's current stage."""

    call: T
    job: int
    position: int


class StageQueue(Generic[T]):
    """The pending calls of several jobs; a job goes on when all calls of its stage are done."""

    def __init__(self, jobs: Sequence[StagedJob[T]]) -> None:
        self._jobs, self._pending = list(jobs), deque[PendingCall[T]]()
        self._stage_results: list[list[Any]] = [[] for _ in jobs]
        self._missing = [0] * len(self._jobs)
        self.results: list[Any] = [None] * len(self._jobs)
        for index in range(len(self._jobs)):
            self._advance(index, None)

    @property
    def has_pending(self) -> bool:
        """Whether a call can be run now."""
        return bool(self._pending)

    def pop(self) -> PendingCall[T]:
        """Remove and return the next pending call."""
        return self._pending.popleft()

    def complete(self, pending: PendingCall[T], result: Any) -> None:
        """Store the result of a call, and start the job's next stage after the last one."""
        self._stage_results[pending.job][pending.position] = result
        self._missing[pending.job] -= 1
        if not self._missing[pending.job]:
            self._advance(pending.job, self._stage_results[pending.job])

    def _advance(self, index: int, results: Any) -> None:
        """Send results to a job until it yields a stage with calls, or ends."""
        job = self._jobs[index]
        try:
            calls = job.send(results)
            while not calls:
                calls = job.send([])
        except StopIteration as end:
            self.results[index] = end.value
            return
        self._stage_results[index], self._missing[index] = [None] * len(calls), len(calls)
        self._pending.extend(
            PendingCall(call, index, position) for position, call in enumerate(calls)
        )


def run_jobs_serially(jobs: Sequence[StagedJob[T]], run_call: Callable[[T], Any]) -> list[Any]:
    """Run the calls of all jobs one after the other, and return the jobs' results."""
    queue = StageQueue(jobs)
    while queue.has_pending:
        pending = queue.pop()
        queue.complete(pending, run_call(pending.call))
    return queue.results


def single_call_job(call: T) -> StagedJob[T]:
    """A job of one call; its result is the call's result."""
    (result,) = yield [call]
    return result


def map_calls(job: StagedJob[T], change: Callable[[T], U]) -> StagedJob[U]:
    """The same job, with `change` applied to each call that it yields."""
    try:
        calls = next(job)
        while True:
            calls = job.send((yield [change(call) for call in calls]))
    except StopIteration as end:
        return end.value
