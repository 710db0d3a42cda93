"""The version of the package: what recipes note, and what `paretoprune.__version__` is."""

from __future__ import annotations

VERSION = "0.1.0"
