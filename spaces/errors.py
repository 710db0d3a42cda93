"""The error that a user can mend: one sentence with the rule, the value and the remedy."""

from __future__ import annotations


class UserError(ValueError):
    """Shown by the command line as one line, exit code 2, without a traceback."""
