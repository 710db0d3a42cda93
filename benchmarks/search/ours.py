"""Our search as a user runs it: `paretoprune.search` at one target, on the baseline's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState

import paretoprune
from benchmarks.scene import baseline_path
from benchmarks.search.bench import Bench
from benchmarks.search.figures import Point
from benchmarks.search.policies import MOST_TRIALS, evidence_of, space_of
from benchmarks.search.rules import SIZES
from paretoprune.analysis.untrained_loss import LOSS_IMAGES
from paretoprune.search.optimizer.plan import make_plan
from paretoprune.search.optimizer.proposer import MAX_SCREENED_TRIALS, assign_strategies
from paretoprune.search.optimizer.screening import (
    EVALUATED_PER_GENERATION,
    GENERATIONS,
    INITIAL_EVALUATIONS,
)
from paretoprune.search.storage.trial_records import TrialRecords, read_trial_records
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.policy import CONTROL_POLICIES


def ours(bench: Bench) -> dict[str, Any]:
    """One search; its front is measured on test by itself."""
    run, rules = bench.folder / "run", bench.rules
    limits: dict[str, Any] = {"max_minutes": rules.minutes, "trials": MOST_TRIALS}
    if rules.table == "images":
        measure_evidence(bench)
        limits = {"trials": trials_paid_at_first(bench)}
    result = paretoprune.search(
        bench.scene.architecture,
        bench.scene.data,
        weights=baseline_path(bench.scene.about["network"]),
        target_flops=SIZES[0],
        epochs=rules.epochs,
        workers=rules.workers,
        seed=bench.seed,
        out=run,
        quiet=True,
        **limits,
    )
    evidence = bench.scored
    record = spent(run, evidence, bench)
    while rules.table == "images" and (
        more := trials_paid_by_what_is_left(limits["trials"], bench)
    ):
        limits["trials"] += more
        result = paretoprune.resume(run, data=bench.scene.data, **limits, quiet=True)
        record = spent(run, evidence, bench)
    bench.points = [
        Point(f"trial {p.trial}", p.flops_fraction, p.accuracy, p.test_accuracy)
        for p in result.points
    ]
    counts = {"finished": len(record.evaluations()), "stopped": record.count_stopped()}
    return {**counts, "repeats": record.count_duplicates(), "limits": limits}


def at_half(bench: Bench) -> dict[str, Any]:
    """The same search with half of the others' budget."""
    bench.rules = bench.rules.halved()
    return ours(bench)


def trials_paid_at_first(bench: Bench) -> int:
    """As many as the images pay for if every one of them runs to its end."""
    left = bench.rules.images - bench.scored - len(CONTROL_POLICIES) * bench.trial_images
    return max(1, trials_paid(left, 0, bench))


def trials_paid_by_what_is_left(trials: int, bench: Bench) -> int:
    """More of them, since halving has stopped some on their way."""
    return trials_paid(bench.rules.images - bench.scored - bench.trained, trials, bench)


def trials_paid(images: float, known: int, bench: Bench) -> int:
    """How many more than those known, with the screening of the plan that they make."""
    more = 0
    while (more + 1) * bench.trial_images + screening_of(known + more + 1, bench) <= images:
        more += 1
    return more


def spent(run: Path, evidence: int, bench: Bench) -> TrialRecords:
    """Count the images of a run: its journal tells."""
    record = read_trial_records(run / "journal.log")
    assert record is not None
    bench.scored = evidence + images_of(rehearsed(run / "evidence"), bench)
    bench.trained = epochs_trained(record, bench.rules.epochs) * len(bench.scene.data.train)
    return record


def screening_of(trials: int, bench: Bench) -> int:
    """Images that the rehearsals before so many trials take at most."""
    plan = make_plan(trials, Target(SIZES[0]), bench.scene.space)
    turns = [*assign_strategies(plan[::2]).values(), *assign_strategies(plan[1::2]).values()]
    slots = min(MAX_SCREENED_TRIALS, turns.count("screened"))
    return images_of(
        1 + max(INITIAL_EVALUATIONS, slots) + slots * EVALUATED_PER_GENERATION * (1 + GENERATIONS),
        bench,
    )


def measure_evidence(bench: Bench) -> None:
    """What the search measures in its workers, measured here once more, to count its images."""
    evidence_of(bench, [*space_of(bench).policies_to_measure, *CONTROL_POLICIES.values()])


def rehearsed(evidence: Path) -> int:
    """Masks that a run has rehearsed: it keeps their losses."""
    count = 0
    for file in evidence.glob("*.npz"):
        with np.load(file) as table:
            count += len(table["losses"]) if "losses" in table else 0
    return count


def images_of(masks: int, bench: Bench) -> int:
    """Images that rehearsing so many masks takes."""
    return masks * min(LOSS_IMAGES, len(bench.scene.data.train))


def epochs_trained(record: TrialRecords, epochs: float) -> float:
    """Of all trials in a run's journal: finished, controls, how far the stopped ones came, and
    whole ones for what failed, as every contender's.
    """
    ended = [*record.evaluations_of("controls"), *record.evaluations_of("search")]
    finished = {one.path: one for one in ended}.values()  # a control's network counts once
    stopped = [
        t.user_attrs["stopped"]["rungs"] for t in record.trials("search", TrialState.PRUNED)
    ]
    reached = [max(rung["epochs"] for rung in rungs) for rungs in stopped if rungs]
    failed = epochs * len(record.failures())
    return sum(trial.epochs for trial in finished) + sum(reached) + failed
