"""The default job, timed: `python search.py --target-flops T` for several seeds.

    python benchmarks/default_job.py [--out benchmarks/results/default_job.json]

Prints accuracy at the target beside dense and both controls, the wall time of a run, and its
overhead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from paretoprune.search.results.utilization import startup_time, worker_utilization
from paretoprune.search.storage.trial_records import read_trial_records

ROOT = Path(__file__).parent.parent


def one_run(target: float, seed: int) -> dict[str, Any]:
    """One search in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, str(ROOT / "search.py"), "--target-flops", str(target)]
        start = time.perf_counter()
        subprocess.run(
            [*command, "--seed", str(seed), "--out", str(out)],
            check=True,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        wall = time.perf_counter() - start
        front = json.loads((out / "front.json").read_text())
        overhead = overhead_of(out / "journal.log")
    named = {"dense": front["dense"], "at_target": front["at_target"], **front["controls"]}
    kept = ("accuracy", "test_accuracy", "flops_fraction")
    rows = {name: {k: point.get(k) for k in kept} for name, point in named.items()}
    return {"target": target, "seed": seed, "wall_s": round(wall, 1), **overhead, **rows}


def overhead_of(journal: Path) -> dict[str, float]:
    """The share of the workers' time inside model compute, and what the first trial waited for
    besides data, dense training, evidence and screening.
    """
    record = read_trial_records(journal)
    assert record is not None
    workers = len(os.sched_getaffinity(0))
    busy, start = worker_utilization(record, workers), startup_time(record, 0.0)
    assert busy is not None
    assert start is not None
    waited = start.seconds - start.work_seconds
    return {"compute_share": round(busy.share, 3), "start_overhead_s": round(waited, 1)}


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}"


def main() -> None:
    """Run the grid, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", type=float, nargs="+", default=[0.4, 0.1])
    options = parser.parse_args()
    runs = [one_run(t, seed) for t in options.targets for seed in range(options.seeds)]
    print(f"{'target':>7} {'network':>10}  validation         test               wall s")
    for target in options.targets:
        here = [run for run in runs if run["target"] == target]
        walls = "-".join(
            f"{w:.0f}"
            for w in sorted({min(r["wall_s"] for r in here), max(r["wall_s"] for r in here)})
        )
        for name in ("dense", "at_target", "uniform", "random"):
            accuracy = spread([run[name]["accuracy"] for run in here])
            test = spread([run[name]["test_accuracy"] for run in here])
            print(f"{target:>7} {name:>10}  {accuracy}  {test}  {walls}")
    for key in ("compute_share", "start_overhead_s"):
        print(f"{key}: {min(run[key] for run in runs)} to {max(run[key] for run in runs)}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        machine = {
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        }
        text = json.dumps({"schema": 1, "machine": machine, "runs": runs}, indent=2)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
