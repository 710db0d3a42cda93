"""Successive halving on fronts: the hopeless stop, the good go on, the first few always do."""

from __future__ import annotations

import numpy as np
import pytest

from paretoprune.search.optimizer.pareto_halving import MIN_RUNG_TRIALS, ParetoHalving
from paretoprune.search.storage.trial_records import read_trial_records
from paretoprune.search.storage.trial_spec import RungResult


def rung(accuracy, flops=0.4, params=0.5, index=0, schedule="one-shot"):
    return RungResult(index, accuracy, flops, params, schedule=schedule)


def test_the_first_few_at_a_rung_go_on_however_bad():
    halving = ParetoHalving()
    assert all(halving.should_continue(rung(0.1)) for _ in range(MIN_RUNG_TRIALS - 1))


def test_a_trial_that_its_like_leave_behind_stops():
    halving = ParetoHalving(rung(0.9 + i / 1000) for i in range(10))
    assert not halving.should_continue(rung(0.5))
    assert halving.should_continue(rung(0.95))


def test_trials_of_other_sizes_and_other_rungs_are_no_measure():
    halving = ParetoHalving([rung(0.9, flops=0.8) for _ in range(20)])
    assert halving.should_continue(rung(0.5, flops=0.4))
    assert ParetoHalving([rung(0.9, index=1) for _ in range(20)]).should_continue(rung(0.5))


def test_who_is_cut_late_is_held_against_those_who_are_cut_late():
    """Gates have their cut behind them at a later rung, and no epoch at their size yet."""
    halving = ParetoHalving(rung(0.9 + i / 1000) for i in range(20))
    assert all(
        halving.should_continue(rung(0.8, schedule="holistic")) for _ in range(MIN_RUNG_TRIALS - 1)
    )
    assert not halving.should_continue(rung(0.7, schedule="holistic"))


def test_a_trial_that_is_less_accurate_but_smaller_than_all_others_goes_on():
    halving = ParetoHalving(rung(0.9, params=0.6) for _ in range(10))
    assert halving.should_continue(rung(0.85, params=0.2))


@pytest.mark.parametrize("kept", [1 / 2, 1 / 3])
def test_of_equal_chances_about_the_kept_share_goes_on(kept):
    rng = np.random.default_rng(0)
    halving = ParetoHalving(kept=kept)
    went_on = [halving.should_continue(rung(float(value))) for value in rng.random(400)]
    assert kept - 0.1 < np.mean(went_on[50:]) < kept + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_the_best_is_never_stopped(seed):
    rng = np.random.default_rng(seed)
    halving = ParetoHalving()
    values = rng.random(100)
    went_on = [halving.should_continue(rung(float(value))) for value in values]
    records = [i for i, value in enumerate(values) if value == values[: i + 1].max()]
    assert all(went_on[i] for i in records)


def test_the_most_accurate_at_a_size_goes_on_among_odd_ones_that_the_front_prefers():
    """In the proof's search the best at the target stopped, while networks of few parameters and
    little accuracy went on: each of these adds much to the volume, one of many good ones little.
    """
    odd = [rung(0.47, params=0.15), rung(0.57, params=0.33), rung(0.74, params=0.45)]
    halving = ParetoHalving([*odd, rung(0.755, params=0.5), rung(0.7646, params=0.626)])
    assert halving.should_continue(rung(0.7692, params=0.6))
    assert not halving.should_continue(rung(0.76, params=0.6))


def test_the_first_that_does_better_than_all_smaller_ones_goes_on():
    halving = ParetoHalving([*(rung(0.76 + i / 1000) for i in range(6)), rung(0.81, flops=0.499)])
    assert halving.should_continue(rung(0.789, flops=0.45))
    assert not halving.should_continue(rung(0.7, flops=0.46))


@pytest.mark.parametrize("hair", [{"flops": 0.3999}, {"params": 0.4999}])
def test_a_hair_less_is_no_merit(hair):
    halving = ParetoHalving(rung(0.76) for _ in range(6))
    assert not halving.should_continue(rung(0.5, **hair))


def test_what_a_trial_had_before_its_learning_rate_rose_still_counts(run):
    """At a quarter of the fine-tune many are worse than before any training, by chance."""
    record = read_trial_records(run.folder / "journal.log")
    spans = [trial.user_attrs["spans"] for trial in record.trials("search")]
    shown = [[at["accuracy"] for at in one.get("rungs", [])] for one in spans]
    assert sum(len(course) > 1 for course in shown) >= 4
    assert all(course == sorted(course) for course in shown)
