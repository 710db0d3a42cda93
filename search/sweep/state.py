"""The state of a sweep: the states of its runs in sweep.json, and the report of all runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...analysis.report.sweep import SweepRow, sweep_page
from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_bytes_atomic, write_json_atomic
from ...spaces.io.bounded_read import read_json
from ...spaces.records.pareto_front import front_hypervolume
from ..results.formatting import format_target
from ..results.run_summary import read_saved_front
from ..storage.run_folder import RunFolder
from ..storage.trial_records import front_from_journal
from .config import SweepEntry

SCHEMA = 1
WAITING, RUNNING, INTERRUPTED = "waiting", "running", "interrupted"
FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """State of one run, the reason of a failure, and the seconds of all launches."""

    state: str = WAITING
    reason: str = ""
    seconds: float = 0.0


class SweepState:
    """The runs of a sweep by name. Each change of a state is written to sweep.json at once."""

    def __init__(self, root: Path, entries: Sequence[SweepEntry]) -> None:
        self.root, self.entries = root, tuple(entries)
        self._statuses = dict.fromkeys((entry.name for entry in entries), RunStatus())
        self._statuses |= self._saved()

    def run_folder(self, entry: SweepEntry) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(self.root / entry.name)

    def unfinished(self) -> list[SweepEntry]:
        """Return the runs that are not finished, in order."""
        return [e for e in self.entries if self._statuses[e.name].state != FINISHED]

    def failed(self) -> list[SweepRow]:
        """Return the runs that failed."""
        return [row for row in self.rows() if row.state == FAILED]

    def reopen(self, entry: SweepEntry) -> None:
        """Mark a run as waiting again, because it has more trials now."""
        before = self._statuses[entry.name]
        self._statuses[entry.name] = RunStatus(seconds=before.seconds)

    def set_state(
        self, entry: SweepEntry, state: str, *, reason: str = "", seconds: float = 0.0
    ) -> None:
        """Set the state of a run, add to its seconds, and write the files."""
        before = self._statuses[entry.name]
        self._statuses[entry.name] = RunStatus(state, reason, before.seconds + seconds)
        self.write()

    def interrupt(self) -> None:
        """Mark the running runs as interrupted."""
        for name, status in self._statuses.items():
            if status.state == RUNNING:
                self._statuses[name] = replace(status, state=INTERRUPTED)
        self.write()

    def rows(self) -> list[SweepRow]:
        """Return the rows of the table."""
        return [self._row(entry) for entry in self.entries]

    def write(self) -> None:
        """Write sweep.json and the report page."""
        rows = self.rows()
        values = [self._json(row, entry) for row, entry in zip(rows, self.entries, strict=True)]
        page = sweep_page(self.root.resolve().name, rows)
        try:
            write_json_atomic(self.root / "sweep.json", {"schema": SCHEMA, "runs": values})
            write_bytes_atomic(self.root / "report.html", page.encode())
        except OSError as error:
            raise unwritable_sweep_error(self.root, error) from None

    def _row(self, entry: SweepEntry) -> SweepRow:
        settings, status, run = entry.settings, self._statuses[entry.name], self.run_folder(entry)
        front = read_saved_front(run) if status.state == FINISHED else None
        seed = f", seed {settings.seed}" if settings.seed else ""
        return SweepRow(
            name=entry.name,
            model=settings.model,
            data=settings.data,
            target=format_target(settings.target()).replace(" <= ", " ") + seed,
            state=status.state,
            minutes=status.seconds / 60,
            reason=status.reason,
            front=front or front_from_journal(run.journal),
            link=f"{entry.name}/report.html" if run.report.exists() else None,
        )

    def _json(self, row: SweepRow, entry: SweepEntry) -> dict[str, Any]:
        front, status = row.front, self._statuses[row.name]
        metrics: dict[str, Any] = {}
        if front is not None:
            answer = front.at_target
            metrics = {
                "dense": asdict(front.dense),
                "at_target": answer.to_json() if answer else None,
                "controls": {name: c.to_json() for name, c in sorted(front.controls.items())},
                "front_size": len(front.points),
                "hypervolume": front_hypervolume(front.points),
            }
        settings = entry.settings
        return {
            "name": row.name,
            "model": settings.model,
            "data": settings.data,
            "seed": settings.seed,
            "target": settings.target().to_json(),
            **asdict(status),
            **metrics,
        }

    def _saved(self) -> dict[str, RunStatus]:
        """Read the states of an earlier launch. A finished run without a front waits again."""
        try:
            values = read_json(self.root / "sweep.json")
        except FileNotFoundError:
            return {}
        try:
            if values["schema"] != SCHEMA:
                raise UserError(
                    f"sweep.json must have schema {SCHEMA}, got {values['schema']!r}; "
                    "update paretoprune"
                )
            return dict(self._checked_statuses(values["runs"]))
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"{self.root / 'sweep.json'} must hold the runs of a sweep, got {error!r}; "
                "delete it: the sweep then reads the run folders again"
            ) from None

    def _checked_statuses(self, runs: Sequence[dict[str, Any]]) -> Iterable[tuple[str, RunStatus]]:
        for values in runs:
            name = str(values["name"])
            status = RunStatus(
                str(values["state"]), str(values["reason"]), float(values["seconds"])
            )
            if status.state == RUNNING:  # the sweep was killed
                status = replace(status, state=INTERRUPTED)
            elif status.state == FINISHED and not RunFolder(self.root / name).front.exists():
                status = RunStatus()
            if name in self._statuses:
                yield name, status


def unwritable_sweep_error(root: Path, error: OSError) -> UserError:
    """Return the error for a sweep folder that cannot be created or written."""
    return UserError(
        f"--out must be a folder that can be written, got {root} ({error.strerror}); "
        "free disk space, or name another folder"
    )
