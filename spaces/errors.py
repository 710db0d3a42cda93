"""Errors that a user can mend: one sentence of rule, value and remedy. The door prints it and exits 2."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what was asked; its text is the whole message."""
