"""The probes on disk while they are made: a line each, flushed, so that a kill loses none."""

from __future__ import annotations

import json
import os
from pathlib import Path

ProbeKey = tuple[int, int]  # group and number removed
UNPRUNED: ProbeKey = (-1, 0)  # no group is cut further


class ProbeLog:
    """Losses by group and number removed; without a file they last as long as the process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._losses: dict[ProbeKey, float] = {} if path is None else read_probe_log(path)

    def get(self, place: ProbeKey) -> float | None:
        """The loss of a probe that was made before."""
        return self._losses.get(place)

    def require(self, place: ProbeKey) -> float:
        """The loss of a probe that must have been made."""
        return self._losses[place]

    def append(self, place: ProbeKey, loss: float) -> None:
        """Keep a probe."""
        self._losses[place] = loss
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps([*place, loss]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def delete(self) -> None:
        """Delete the file: the finished curves hold all of it."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def items(self) -> list[tuple[ProbeKey, float]]:
        """All probes, by group and number removed."""
        return sorted(self._losses.items())


def read_probe_log(path: Path) -> dict[ProbeKey, float]:
    """The whole lines of a journal; a torn last one is cut off."""
    if not path.is_file():
        return {}
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        os.truncate(path, len(whole))
    rows = [json.loads(line) for line in whole.splitlines()]
    return {(int(group), int(removed)): float(loss) for group, removed, loss in rows}
