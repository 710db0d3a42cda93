"""What mattered: which choices of the policy separate trials of like size, and what wins share.

A trial's worth is its rank by

    r = accuracy - median accuracy of the NEAR trials nearest in log FLOPs,

so that a larger network earns nothing by its size, and one collapsed trial weighs no more than a
bad one. Optuna's forest (mean decrease in impurity) then says how much of the ranks each field of
the policy explains. Such shares add up to 1 whatever they were fitted to, and favour fields of
many values: beside each stands what chance gives it, from shuffles of the same ranks (Altmann et
al. 2010, "Permutation importance"). With m and s the mean and deviation of its root over them,

    chance = (m + z s)^2,   z = the most deviations that any field reached in any shuffle,

so that among many fields none looks clear by luck. Only what exceeds its chance is clear.

What the front has in common is claimed of a value if the front, drawn at random from the trials,
would seldom have it so often; seldom with regard to all claims looked at (Holm 1979).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ...analysis.report.report_data import Importance, Insights
from ...spaces.policy.policy import Policy
from ...spaces.records.evaluation import Evaluation

MIN_TRIALS_FOR_INSIGHTS = 8  # trials, below which nothing is said
NEIGHBOR_COUNT = 8  # trials that one is compared with
PERMUTATION_COUNT = 39  # few enough to wait for, enough that luck seldom looks clear
MIN_DIFFERING_TRIALS = (
    3  # trials that must differ in a field from the rest before anything is said of it
)
SIGNIFICANCE_LEVEL = 0.05  # the chance that a search of mere luck has anything mentioned
MAX_SENTENCES = 6
FloatArray = NDArray[np.float64]


def compute_insights(trials: Sequence[Evaluation], front: Sequence[Evaluation]) -> Insights:
    """Importances over all finished trials, and what the front's policies have in common."""
    if len(trials) < MIN_TRIALS_FOR_INSIGHTS:
        few = (
            f"too few trials to say what mattered: {len(trials)} finished, "
            f"{MIN_TRIALS_FOR_INSIGHTS} are needed"
        )
        return Insights(len(trials), note=few)
    varied = varied_fields(trials)
    if not varied:
        return Insights(len(trials), note="the policies of the trials hardly differ")
    return Insights(
        len(trials),
        field_importances(trials, varied),
        tuple(front_commonalities(trials, front, varied)),
    )


def varied_fields(trials: Sequence[Evaluation]) -> list[str]:
    """The fields in which at least `UNLIKE` trials differ from the commonest value."""
    names = [field.name for field in fields(Policy)]
    most = {name: Counter(field_values(trials, name)).most_common(1)[0][1] for name in names}
    return [name for name in names if len(trials) - most[name] >= MIN_DIFFERING_TRIALS]


def size_adjusted_ranks(trials: Sequence[Evaluation]) -> FloatArray:
    """The ranks of accuracy at comparable size, in [0, 1]."""
    sizes = np.log([max(trial.flops_fraction, 1e-9) for trial in trials])
    accuracy = np.array([trial.accuracy for trial in trials])
    apart = np.abs(sizes[:, None] - sizes)
    np.fill_diagonal(apart, np.inf)
    near = np.argsort(apart, axis=1, kind="stable")[:, : min(NEIGHBOR_COUNT, len(trials) - 1)]
    above = accuracy - np.median(accuracy[near], axis=1)
    ranks: FloatArray = (above[:, None] > above).mean(axis=1) + (above[:, None] == above).mean(
        1
    ) / 2
    return ranks


def field_importances(
    trials: Sequence[Evaluation], names: Sequence[str]
) -> tuple[Importance, ...]:
    """One a field, the largest first."""
    rng = np.random.default_rng(0)
    ranks, study = size_adjusted_ranks(trials), build_study(trials, names)
    shares = impurity_importances(study, names, ranks)
    shuffled = [
        impurity_importances(study, names, rng.permutation(ranks))
        for _ in range(PERMUTATION_COUNT)
    ]
    chances = noise_importances(np.array(shuffled))
    found = [Importance(*one) for one in zip(names, shares, chances, strict=True)]
    return tuple(sorted(found, key=lambda one: -one.share))


def noise_importances(shuffled: FloatArray) -> list[float]:
    """How much each field explains by luck, of shares [shuffles, fields]."""
    roots = np.sqrt(np.maximum(shuffled, 0.0))
    mean, deviation = roots.mean(axis=0), roots.std(axis=0) + 1e-9
    most = ((roots - mean) / deviation).max()
    return [float(chance) for chance in (mean + most * deviation) ** 2]


def build_study(trials: Sequence[Evaluation], names: Sequence[str]) -> optuna.Study:
    """The trials as Optuna knows trials, every field a parameter of each."""
    columns = {name: field_values(trials, name) for name in names}
    distributions = {name: make_distribution(values) for name, values in columns.items()}
    study = optuna.create_study(direction="maximize")
    for index, trial in enumerate(trials):
        params = {name: values[index] for name, values in columns.items()}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=distributions, value=trial.accuracy
            )
        )
    return study


def impurity_importances(
    study: optuna.Study, names: Sequence[str], ranks: FloatArray
) -> list[float]:
    """Optuna's importances of these fields for these ranks of its trials."""
    from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances

    evaluator = MeanDecreaseImpurityImportanceEvaluator(n_trees=32, seed=0)  # with sklearn: slow
    shares = get_param_importances(
        study, evaluator=evaluator, target=lambda trial: float(ranks[trial.number])
    )
    return [float(shares.get(name, 0.0)) for name in names]


def field_values(trials: Sequence[Evaluation], name: str) -> list[Any]:
    """A field's values: numbers as they are; where others stand among them, as words."""
    values = [getattr(trial.policy, name) for trial in trials]
    if all(is_number(value) for value in values):
        return values
    return [value if isinstance(value, str) else given_or_none(value) for value in values]


def given_or_none(value: object) -> str:
    """Whether there is a value: numbers that only some policies have are too few to be told."""
    return "none" if value is None or value == () else "given"


def make_distribution(values: Sequence[Any]) -> BaseDistribution:
    """Optuna's distribution that has exactly these values in it."""
    if all(is_number(value) for value in values):
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(sorted(set(values)))


def front_commonalities(
    trials: Sequence[Evaluation], front: Sequence[Evaluation], names: Sequence[str]
) -> list[str]:
    """Sentences on values that the front has more often than chance would give, rarest first."""
    found = []
    for name in names:
        for claim, holders in claims_about_field(trials, name):
            on_front = sum(1 for point in front if point.path in holders)
            chance = hypergeometric_tail(len(trials), len(holders), len(front), on_front)
            found.append((chance, format_claim(claim, on_front, len(front), holders, trials)))
    return significant_by_holm(sorted(found))[:MAX_SENTENCES]


def significant_by_holm(found: Sequence[tuple[float, str]]) -> list[str]:
    """Of claims and their chances, rarest first, those that hold among so many (Holm)."""
    kept = []
    for number, (chance, text) in enumerate(found):
        if chance * (len(found) - number) > SIGNIFICANCE_LEVEL:
            break
        kept.append(text)
    return kept


def format_claim(
    claim: str, on_front: int, front: int, holders: set[str], trials: Sequence[Evaluation]
) -> str:
    """One finding with its counts."""
    return f"{on_front} of the front's {front} have {claim}; of all {len(trials)}: {len(holders)}"


def claims_about_field(trials: Sequence[Evaluation], name: str) -> list[tuple[str, set[str]]]:
    """What can be said of a field, and the trials (by path) of which it is true."""
    label = name.replace("_", " ")
    values = field_values(trials, name)
    pairs = list(zip(values, trials, strict=True))
    if len(set(values)) > 2 and all(is_number(value) for value in values):
        middle = float(np.median(values))
        high = {trial.path for value, trial in pairs if value > middle}
        low = {trial.path for value, trial in pairs if value < middle}
        return [(f"{label} above {middle:.3g}", high), (f"{label} below {middle:.3g}", low)]
    return [
        (f"{label} {format_value(value)}", {trial.path for own, trial in pairs if own == value})
        for value in sorted(set(values))
    ]


def format_value(value: object) -> str:
    """A value of a policy as a reader would write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def hypergeometric_tail(trials: int, holders: int, front: int, on_front: int) -> float:
    """P(at least `on_front` of the front are holders), were the front drawn at random."""
    ways = sum(
        math.comb(holders, k) * math.comb(trials - holders, front - k)
        for k in range(on_front, min(holders, front) + 1)
    )
    return ways / math.comb(trials, front)


def is_number(value: object) -> bool:
    """True for numbers, and not for True."""
    return isinstance(value, int | float) and not isinstance(value, bool)
