"""Where the real data and weights of the slower tests are; absent ones skip a test, with words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shared_file(kind: str, name: str) -> Path:
    """A file in PARETOPRUNE_DATA or PARETOPRUNE_WEIGHTS (default: ../shared beside the repo)."""
    variable = f"PARETOPRUNE_{kind.upper()}"
    file = Path(os.environ.get(variable, ROOT.parent / "shared" / kind)) / name
    if not file.exists():
        pytest.skip(f"{name} is not there; set {variable} to the directory that holds it")
    return file
