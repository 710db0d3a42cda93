"""Pareto halving: outperformed trials stop, good ones continue, the first few always do."""

from __future__ import annotations

import numpy as np
import pytest

from paretoprune.search.optimizer.pareto_halving import MIN_RUNG_TRIALS, ParetoHalving
from paretoprune.search.storage.trial_records import read_trial_records
from paretoprune.search.storage.trial_spec import RungResult


def rung(accuracy, flops=0.4, params=0.5, index=0, schedule="one-shot"):
    return RungResult(index, accuracy, flops, params, schedule=schedule)


def test_the_first_few_trials_at_a_rung_continue():
    halving = ParetoHalving()
    assert all(halving.should_continue(rung(0.1)) for _ in range(MIN_RUNG_TRIALS - 1))


def test_a_trial_that_its_peers_outperform_stops():
    halving = ParetoHalving(rung(0.9 + i / 1000) for i in range(10))
    assert not halving.should_continue(rung(0.5))
    assert halving.should_continue(rung(0.95))


def test_trials_of_other_sizes_and_rungs_are_no_peers():
    halving = ParetoHalving([rung(0.9, flops=0.8) for _ in range(20)])
    assert halving.should_continue(rung(0.5, flops=0.4))
    assert ParetoHalving([rung(0.9, index=1) for _ in range(20)]).should_continue(rung(0.5))


def test_trials_of_other_schedules_are_no_peers():
    """Late-pruned networks have trained less at their final size."""
    halving = ParetoHalving(rung(0.9 + i / 1000) for i in range(20))
    assert all(
        halving.should_continue(rung(0.8, schedule="holistic")) for _ in range(MIN_RUNG_TRIALS - 1)
    )
    assert not halving.should_continue(rung(0.7, schedule="holistic"))


def test_a_trial_smaller_than_all_peers_continues():
    halving = ParetoHalving(rung(0.9, params=0.6) for _ in range(10))
    assert halving.should_continue(rung(0.85, params=0.2))


@pytest.mark.parametrize("kept", [1 / 2, 1 / 3])
def test_of_random_trials_about_the_kept_share_continues(kept):
    rng = np.random.default_rng(0)
    halving = ParetoHalving(kept=kept)
    continued = [halving.should_continue(rung(float(value))) for value in rng.random(400)]
    assert kept - 0.1 < np.mean(continued[50:]) < kept + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_the_best_is_never_stopped(seed):
    rng = np.random.default_rng(seed)
    halving = ParetoHalving()
    values = rng.random(100)
    continued = [halving.should_continue(rung(float(value))) for value in values]
    records = [i for i, value in enumerate(values) if value == values[: i + 1].max()]
    assert all(continued[i] for i in records)


def test_the_most_accurate_peer_continues_despite_unusual_ones_on_the_front():
    """A regression: small, inaccurate networks each add much hypervolume, and the best at the
    target, which is one of many good networks, adds little.
    """
    unusual = [rung(0.47, params=0.15), rung(0.57, params=0.33), rung(0.74, params=0.45)]
    halving = ParetoHalving([*unusual, rung(0.755, params=0.5), rung(0.7646, params=0.626)])
    assert halving.should_continue(rung(0.7692, params=0.6))
    assert not halving.should_continue(rung(0.76, params=0.6))


def test_a_trial_more_accurate_than_all_smaller_peers_continues():
    halving = ParetoHalving([*(rung(0.76 + i / 1000) for i in range(6)), rung(0.81, flops=0.499)])
    assert halving.should_continue(rung(0.789, flops=0.45))
    assert not halving.should_continue(rung(0.7, flops=0.46))


@pytest.mark.parametrize("sizes", [{"flops": 0.3999}, {"params": 0.4999}])
def test_a_size_within_the_tolerance_is_no_advantage(sizes):
    halving = ParetoHalving(rung(0.76) for _ in range(6))
    assert not halving.should_continue(rung(0.5, **sizes))


def test_a_rung_counts_the_best_accuracy_so_far(run):
    """A rising learning rate makes many networks worse early in the fine-tune."""
    records = read_trial_records(run.folder / "journal.log")
    spans = [trial.user_attrs["spans"] for trial in records.trials("search")]
    shown = [[at["accuracy"] for at in one.get("rungs", [])] for one in spans]
    assert sum(len(accuracies) > 1 for accuracies in shown) >= 4
    assert all(accuracies == sorted(accuracies) for accuracies in shown)
