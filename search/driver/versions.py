"""The versions that made a run, read without importing what they are of."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

RECORDED_PACKAGES = ("paretoprune", "torch", "torchvision", "optuna", "ray", "numpy")


def installed_versions() -> dict[str, str]:
    """By name; what is not installed is left out."""
    found = {"Python": platform.python_version(), "platform": platform.platform()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from its source tree
            continue
    return found
