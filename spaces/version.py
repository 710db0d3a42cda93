"""The version of the package, recorded in recipes and exposed as `paretoprune.__version__`."""

from __future__ import annotations

VERSION = "0.1.0"
