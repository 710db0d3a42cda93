"""Versions of the software that made a run, read without importing it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

RECORDED_PACKAGES = ("paretoprune", "torch", "torchvision", "optuna", "ray", "numpy")


def installed_versions() -> dict[str, str]:
    """Return versions by name, without packages that are not installed."""
    found = {"Python": platform.python_version(), "platform": platform.platform()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # the package runs from its source tree
            continue
    return found
