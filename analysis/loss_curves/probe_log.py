"""Log of probes on disk: one JSON line per probe, flushed at once, so a kill loses none."""

from __future__ import annotations

import json
import os
from pathlib import Path

ProbeKey = tuple[int, int]  # group, number of atoms removed
UNPRUNED: ProbeKey = (-1, 0)  # the loss with no further atom removed


class ProbeLog:
    """Losses by group and number of removed atoms; kept in memory only if `path` is None."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._losses: dict[ProbeKey, float] = {} if path is None else read_probe_log(path)

    def get(self, key: ProbeKey) -> float | None:
        """The loss of a probe, or None if it was not made yet."""
        return self._losses.get(key)

    def require(self, key: ProbeKey) -> float:
        """The loss of a probe; raises KeyError if it was not made yet."""
        return self._losses[key]

    def append(self, key: ProbeKey, loss: float) -> None:
        """Add a probe to the log."""
        self._losses[key] = loss
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps([*key, loss]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def delete(self) -> None:
        """Delete the file; the saved curves contain all probes."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def items(self) -> list[tuple[ProbeKey, float]]:
        """All probes, sorted by group and number of removed atoms."""
        return sorted(self._losses.items())


def read_probe_log(path: Path) -> dict[ProbeKey, float]:
    """Read the complete lines of a log; truncate an incomplete last line."""
    if not path.is_file():
        return {}
    text = path.read_bytes()
    complete = text[: text.rfind(b"\n") + 1]
    if len(complete) < len(text):
        os.truncate(path, len(complete))
    rows = [json.loads(line) for line in complete.splitlines()]
    return {(int(group), int(removed)): float(loss) for group, removed, loss in rows}
