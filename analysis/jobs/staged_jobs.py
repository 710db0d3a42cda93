"""Work in pieces that do not wait for each other, of tasks that any worker may do.

A piece is a generator: it yields the tasks that can be done side by side now, is sent what came of
them, in their order, and so on; what it returns in the end is what the piece is about.
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
    """A task, and its place: the piece that asked for it, and where among what it asked for."""

    call: T
    job: int
    position: int


class StageQueue(Generic[T]):
    """Whose turn it is: each piece goes on when all that it asked for is done."""

    def __init__(self, pieces: Sequence[StagedJob[T]]) -> None:
        self._pieces, self._waiting = list(pieces), deque[PendingCall[T]]()
        self._results: list[list[Any]] = [[] for _ in pieces]
        self._missing = [0] * len(self._pieces)
        self.results: list[Any] = [None] * len(self._pieces)
        for index in range(len(self._pieces)):
            self._advance(index, None)

    @property
    def has_pending(self) -> bool:
        """Whether there is a task that can be done now."""
        return bool(self._waiting)

    def pop(self) -> PendingCall[T]:
        """The next of them."""
        return self._waiting.popleft()

    def complete(self, turn: PendingCall[T], result: Any) -> None:
        """What came of it."""
        self._results[turn.job][turn.position] = result
        self._missing[turn.job] -= 1
        if not self._missing[turn.job]:
            self._advance(turn.job, self._results[turn.job])

    def _advance(self, index: int, results: Any) -> None:
        """Send a piece what it asked for, until it asks for something else or is over."""
        piece = self._pieces[index]
        try:
            asked = piece.send(results)
            while not asked:
                asked = piece.send([])
        except StopIteration as end:
            self.results[index] = end.value
            return
        self._results[index], self._missing[index] = [None] * len(asked), len(asked)
        self._waiting.extend(PendingCall(task, index, place) for place, task in enumerate(asked))


def run_jobs_serially(pieces: Sequence[StagedJob[T]], do: Callable[[T], Any]) -> list[Any]:
    """What the pieces found, their tasks done here, one after the other."""
    rota = StageQueue(pieces)
    while rota.has_pending:
        turn = rota.pop()
        rota.complete(turn, do(turn.call))
    return rota.results


def single_call_job(task: T) -> StagedJob[T]:
    """A piece of one task."""
    (found,) = yield [task]
    return found


def map_calls(piece: StagedJob[T], change: Callable[[T], U]) -> StagedJob[U]:
    """The same piece, asking for its tasks in another form."""
    try:
        asked = next(piece)
        while True:
            asked = piece.send((yield [change(task) for task in asked]))
    except StopIteration as end:
        return end.value
