"""The board: an actor that workers write lines to. Its process imports nothing that is heavy."""

from __future__ import annotations


class MessageQueue:
    """Lines that the driver takes away."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """All lines since the last call."""
        lines, self._lines = self._lines, []
        return lines
