"""What mattered: planted effects are found, chance and size are not taken for one."""

from dataclasses import replace

import numpy as np
import pytest
from evaluations import evaluation
from scipy.stats import hypergeom

from paretoprune.analysis.report.report_data import Insights
from paretoprune.search.results.formatting import make_console, show_insights
from paretoprune.search.results.importance import (
    MIN_TRIALS_FOR_INSIGHTS,
    compute_insights,
    front_commonalities,
    hypergeometric_tail,
    size_adjusted_ranks,
    varied_fields,
)
from paretoprune.search.storage.trial_records import silence_optuna
from paretoprune.spaces.policy.policy import Policy
from paretoprune.spaces.records.pareto_front import non_dominated


@pytest.fixture(autouse=True)
def quiet():
    silence_optuna()


def trials_of(count, accuracy, seed=0):
    """Trials of random policies and sizes, with the accuracy that a function gives them."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        policy = Policy(
            score=str(rng.choice(["l2", "taylor", "fisher"])),
            normalisation=str(rng.choice(["none", "max", "rank"])),
            price_power=float(rng.random()),
            learning_rate=float(rng.uniform(0.01, 0.1)),
        )
        macs = int(rng.integers(200, 900))
        value = accuracy(policy, macs / 1000, rng)
        point = evaluation(value, macs=macs, params=50, trial=k)
        made.append(replace(point, policy=policy))
    return made


def test_a_score_that_decides_is_the_first_and_clear():
    trials = trials_of(40, lambda p, size, rng: 0.3 * size + 0.05 * (p.score == "taylor"))
    found = compute_insights(trials, non_dominated(trials))
    assert found.importances[0].field == "score"
    assert found.importances[0].is_significant
    assert sum(one.share for one in found.importances) == pytest.approx(1, abs=1e-6)
    assert any("score taylor" in line for line in found.sentences)


def test_what_only_size_decides_is_not_taken_for_a_policy():
    clear = []
    for seed in range(3):
        trials = trials_of(40, lambda p, size, rng: 0.9 * size, seed)
        found = compute_insights(trials, non_dominated(trials))
        clear += [one.field for one in found.importances if one.is_significant]
    assert len(clear) <= 1  # one search in twenty may see something in nothing


def test_a_front_of_mere_luck_has_seldom_anything_in_common():
    """Of all that is looked at in a search, not of each claim alone, one in twenty is luck."""
    spoke = 0
    for seed in range(60):
        trials = trials_of(40, lambda p, size, rng: 0.3 * size + 0.1 * rng.random(), seed)
        spoke += bool(front_commonalities(trials, non_dominated(trials), varied_fields(trials)))
    assert spoke <= 6


def test_the_counts_of_a_sentence_are_those_of_the_trials():
    trials = trials_of(40, lambda p, size, rng: 0.3 * size + 0.05 * (p.score == "taylor"))
    front = non_dominated(trials)
    line = next(s for s in compute_insights(trials, front).sentences if "score taylor" in s)
    own = sum(point.policy.score == "taylor" for point in front)
    total = sum(point.policy.score == "taylor" for point in trials)
    assert line == f"{own} of the front's {len(front)} have score taylor; of all 40: {total}"


def test_too_few_trials_are_said_to_be_too_few():
    trials = trials_of(MIN_TRIALS_FOR_INSIGHTS - 1, lambda p, size, rng: size)
    found = compute_insights(trials, non_dominated(trials))
    assert "too few trials" in found.note
    assert found.importances == ()
    assert "too few" in compute_insights([], []).note


def test_equal_policies_are_said_to_be_equal():
    trials = [evaluation(k / 10, trial=k) for k in range(9)]
    assert "hardly differ" in compute_insights(trials, trials[-1:]).note


def test_the_worth_of_a_trial_is_its_rank_among_those_of_like_size():
    trials = trials_of(30, lambda p, size, rng: 0.9 * size + 0.3 * (p.score == "l2"))
    ranks = size_adjusted_ranks(trials)
    assert ranks.min() >= 0
    assert ranks.max() <= 1
    good = np.array([trial.policy.score == "l2" for trial in trials])
    assert ranks[good].mean() > ranks[~good].mean() + 0.2
    collapsed = [*trials[:-1], replace(trials[-1], accuracy=-1e6)]
    assert (
        np.abs(size_adjusted_ranks(collapsed)[:-1] - ranks[:-1]).mean() < 0.2
    )  # it drags nothing along


def test_the_chance_of_a_value_on_the_front_is_the_hypergeometric_tail():
    for total, holders, front, own in [(30, 10, 6, 5), (24, 12, 6, 6), (8, 8, 3, 3), (9, 2, 4, 0)]:
        exact = hypergeom.sf(own - 1, total, holders, front)
        assert hypergeometric_tail(total, holders, front, own) == pytest.approx(exact)


def test_it_is_said_that_stopped_trials_are_left_out(capsys):
    show_insights(Insights(9, stopped=3), make_console())
    assert "of the 9 finished trials; the 3 that were stopped" in capsys.readouterr().out
    show_insights(Insights(9, stopped=1), make_console())
    assert "the one that was stopped on its way is not among them" in capsys.readouterr().out
    show_insights(Insights(9), make_console())
    assert "stopped" not in capsys.readouterr().out
