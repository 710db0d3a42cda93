"""How soon hopeless trials can be told: searches that stop none, replayed with halving.

    python -m benchmarks.halving [--seeds 3] [--trials 48] [--target 0.1]

One search a seed on scikit-learn's digits, one worker: its trials are judged at more rungs than a
search has, and all go on. Then ways to halve are replayed over them in their order: which trials
would have been stopped, and when. A replay knows nothing of what the search would have tried
instead, had it known less: `benchmarks.steering` has whole searches with and without.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.cells import fill
from benchmarks.steering import options_of_searches, small_search
from paretoprune.search.optimizer.pareto_halving import ParetoHalving
from paretoprune.search.storage.trial_records import trial_spec_of
from paretoprune.search.storage.trial_spec import RungResult
from paretoprune.search.trial import budget as effort
from paretoprune.spaces.records.hypervolume import hypervolume

OUT = Path("benchmarks/results/halving.json")
SHARES = (0.0, 0.1, 0.25, 0.5)  # of the epochs, where trials are judged
RUNGS = ((0.0, 0.25, 0.5), (0.0, 0.5), (0.25, 0.5), (0.1, 0.25, 0.5), (0.0, 0.1, 0.5), (0.1, 0.5))
KEPT = (1 / 2, 1 / 3, 1 / 4)


def searched(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One search that judges its trials and stops none: their rungs and their ends."""
    with (
        patch.object(effort, "RUNGS", SHARES),
        patch.object(ParetoHalving, "goes_on", lambda halving, rung: True),
        small_search(seed, options) as (_, record),
    ):
        found = {e.trial: e for e in record.evaluations_of("search")}
        return {
            "trials": [
                {
                    "accuracy": round(found[trial.number].accuracy, 5),
                    "flops": round(found[trial.number].flops_fraction, 5),
                    "params": round(found[trial.number].params_fraction, 5),
                    "epochs": round(found[trial.number].epochs, 3),
                    "exempt": job.origin.startswith("preset:"),
                    "schedule": job.policy.schedule,
                    "rungs": [
                        (rung["index"], round(rung["accuracy"], 5), round(rung["epochs"], 3))
                        for rung in trial.user_attrs["spans"].get("rungs", [])
                    ],
                }
                for trial in record.trials("search")
                if trial.number in found and (job := trial_spec_of(trial))
            ]
        }


def replayed(trials: list[dict[str, Any]], rungs: Sequence[float], kept: float) -> dict[str, Any]:
    """Had these rungs kept this share: the share of the epochs, and what the front would lose."""
    judge = ParetoHalving(kept=kept)
    ends = [end_of(trial, rungs, judge) for trial in trials]
    left = [t for t, end in zip(trials, ends, strict=True) if end == t["epochs"]]
    whole = sum(trial["epochs"] for trial in trials)
    spent = sum(ends)
    return {
        "epochs": spent / whole,
        "hypervolume": volume(left) - volume(trials),
        "stopped": len(trials) - len(left),
    }


def end_of(trial: dict[str, Any], rungs: Sequence[float], judge: ParetoHalving) -> float:
    """The epochs after which the trial would have ended."""
    sizes = trial["flops"], trial["params"]
    for index, accuracy, epochs in trial["rungs"]:
        rung = RungResult(index, accuracy, *sizes, epochs, trial["schedule"])
        if SHARES[index] in rungs and not judge.should_continue(rung) and not trial["exempt"]:
            return float(epochs)
    return float(trial["epochs"])


def volume(trials: list[dict[str, Any]]) -> float:
    """Of accuracy against FLOPs saved."""
    return hypervolume(np.array([(t["accuracy"], 1 - t["flops"]) for t in trials]), np.zeros(2))


def show(found: dict[str, Any]) -> None:
    """Means and spreads over the seeds, by rungs and share that goes on."""
    for rungs, kept in product(RUNGS, KEPT):
        cells = [replayed(cell["trials"], rungs, kept) for cell in found["cells"].values()]
        means = {
            name: statistics.mean(cell[name] for cell in cells)
            for name in ("epochs", "hypervolume", "stopped")
        }
        worst = min(cell["hypervolume"] for cell in cells)
        parts = [*(f"{name} {mean:7.4f}" for name, mean in means.items()), f"worst {worst:.4f}"]
        print(f"{rungs!s:20} {kept:.2f}  {'  '.join(parts)}")


def main() -> None:
    """Fill the results file, then replay."""
    options = options_of_searches(__doc__ or "", OUT).parse_args()
    about = {"trials": options.trials, "target": options.target, "rungs": SHARES}
    about["held_against"] = "trials of the same schedule"
    cells = {f"seed {seed}": partial(searched, seed, options) for seed in range(options.seeds)}
    show(fill(options.out, about, cells))


if __name__ == "__main__":
    main()
