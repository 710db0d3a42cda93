"""Who is compared, in the order in which cells are filled, and how a cell is measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.cells import Unavailable
from benchmarks.scene import Scene
from benchmarks.search.bench import Bench
from benchmarks.search.figures import figures
from benchmarks.search.ours import at_half, ours
from benchmarks.search.policies import alone, at_random
from benchmarks.search.rules import Rules
from benchmarks.search.with_fastnas import fastnas
from benchmarks.search.with_nni import nni_pruners
from benchmarks.search.with_torch_pruning import torch_pruning
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, POLICY_PRESETS

Contender = Callable[[Bench], dict[str, Any]]

CONTENDERS: dict[str, Contender] = {
    "ours": ours,
    "fastnas": fastnas,
    "torch-pruning": torch_pruning,
    "random": at_random,
    "ours at half": at_half,
    **{name: alone(policy) for name, policy in POLICY_PRESETS.items()},
    "uniform-l1": alone(replace(CONTROL_POLICIES["uniform"], refit=False)),  # as people do it
    "nni": nni_pruners,
}
NEEDS = {
    "fastnas": ("modelopt", "huggingface_hub", "torchprofile"),
    "torch-pruning": ("torch_pruning",),
    "nni": ("nni",),
}
SOURCES = {"nni": "nni==3.0 in an environment of its own"}


def cell_name(contender: str, seed: int) -> str:
    """The cell's key in the results."""
    return f"{contender} seed {seed}"


def measure(contender: str, seed: int, rules: Rules, scene: Scene, work: Path) -> dict[str, Any]:
    """One cell: the contender spends its budget, then its front is measured."""
    lacking = [name for name in NEEDS.get(contender, ()) if find_spec(name) is None]
    if lacking:
        source = SOURCES.get(contender, ".[benchmark]")
        raise Unavailable(f"it needs {', '.join(lacking)}; pip install {source}")
    folder = work / rules.table / cell_name(contender, seed).replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bench = Bench(scene, rules, seed, folder)
    try:
        about = CONTENDERS[contender](bench)
        bench.settled()
        bench.end()
        front = bench.front()
    finally:
        bench.close()
    # In the wall table ours would have to measure its evidence once more to count them.
    scored = {"images_scored": bench.scored} if rules.table == "images" else {}
    return {
        **figures(front),
        "torch": torch.__version__,
        "bf16": scene.machine.bf16,
        "wall_seconds": round(bench.elapsed, 1),
        "images_trained": round(bench.trained),
        **scored,
        "longest_fine_tune_seconds": round(bench.longest, 1),
        "failures": bench.failures,
        "about": {"fine_tunes": bench.offered, **about},
    }
