"""Our search as a user runs it: `paretoprune.search` at one target, on the baseline's weights."""

from __future__ import annotations

from typing import Any

from optuna.trial import TrialState

import paretoprune
from benchmarks.scene import baseline_folder
from benchmarks.search.bench import Bench
from benchmarks.search.figures import Point
from benchmarks.search.policies import MOST_TRIALS, context_of, space_of
from benchmarks.search.rows import counting
from benchmarks.search.rules import SIZES
from paretoprune.search.effort import RUNGS
from paretoprune.search.reading import Record, read_record
from paretoprune.spaces.policy import CONTROLS


def ours(bench: Bench) -> dict[str, Any]:
    """One search; its front is measured on test by itself."""
    run = bench.folder / "run"
    limits = limits_of(bench)

    def add(rows: int) -> None:
        if not (run / "trials").exists():  # later, the driver only measures the front on test
            bench.scored += rows

    with counting(add):
        result = paretoprune.search(
            "resnet20",
            bench.scene.data,
            weights=baseline_folder() / "resnet20.safetensors",
            target_flops=SIZES[0],
            epochs=bench.rules.epochs,
            workers=bench.rules.workers,
            seed=bench.seed,
            out=run,
            quiet=True,
            **limits,
        )
    bench.scored -= len(bench.scene.data.validation)  # the dense network's own accuracy
    record = read_record(run / "journal.log")
    assert record is not None
    bench.trained = epochs_trained(record, bench.rules.epochs) * len(bench.scene.data.train)
    bench.points = [
        Point(f"trial {p.trial}", p.flops_fraction, p.accuracy, p.test_accuracy)
        for p in result.points
    ]
    counts = {"finished": len(record.evaluations()), "stopped": record.stopped()}
    return {**counts, "repeats": record.repeats(), "limits": limits}


def limits_of(bench: Bench) -> dict[str, Any]:
    """How the search is told to stop: by the clock, or by as many trials as the images pay for."""
    if bench.rules.table == "wall":
        return {"max_minutes": bench.rules.minutes, "trials": MOST_TRIALS}
    context_of(
        bench, [*space_of(bench).read, *CONTROLS.values()]
    )  # what its evidence will cost; it measures it again
    left, bench.scored = bench.rules.images - bench.scored, 0
    return {"trials": max(1, int(left // bench.trial_images) - len(CONTROLS))}


def epochs_trained(record: Record, epochs: float) -> float:
    """Of all trials in a run's journal: finished, controls, and how far the stopped ones came."""
    finished = [*record.evaluations(), *record.controls().values()]
    stopped = [
        t.user_attrs["stopped"]["rungs"] for t in record.trials("search", TrialState.PRUNED)
    ]
    reached = [max(RUNGS[rung["index"]] for rung in rungs) for rungs in stopped if rungs]
    return sum(trial.epochs for trial in finished) + epochs * sum(reached)
