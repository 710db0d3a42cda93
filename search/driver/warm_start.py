"""Warm start: the policies of an earlier search's front are the first trials of a new search.

They are stored in config.json of the new run, which then does not need the earlier run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...spaces.errors import UserError
from ...spaces.policy.policy import Policy, policy_from_json
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front
from ..optimizer.screening import Proposal
from ..optimizer.search_space import PolicySpace
from ..results.run_summary import summarize_run
from ..storage.run_folder import RunFolder, open_run

WARM_START_KEY = "warm_start"  # the field of config.json


def proposals_from_run(run: Path) -> tuple[Proposal, ...]:
    """Return the policies of a run's front, to be tried first by another search.

    Raises:
        UserError: the run has no front yet.
    """
    folder, _ = open_run(run)
    front = summarize_run(folder).front
    if front is None:
        raise UserError(
            f"a transfer needs the front of a search, got none in {run}; "
            f"continue it with paretoprune search --resume {run}"
        )
    return tuple(proposals_from_front(front))


def images_like(run: Path, data: object, options: dict[str, Any]) -> dict[str, Any]:
    """Add the run's normalisation and augmentation to the options if the data are the same.

    Options that the user gave take precedence.
    """
    config = open_run(run)[1]
    settings = config["settings"]
    if config["data_given"] or data != settings.get("data"):
        return options
    found = {name: settings.get(name) for name in ("mean", "std", "augment")}
    if options.get("mean") is not None or options.get("std") is not None:
        found.pop("mean")
        found.pop("std")
    return {name: value for name, value in found.items() if value is not None} | options


def proposals_from_front(front: Front) -> list[Proposal]:
    """Return each policy of the front once, ordered by the distance in FLOPs from the target.

    Policies are tried at the new target, so those found near the old target come first.
    """
    first = [front.at_target] if front.at_target else []
    center = first[0].flops_fraction if first else 1.0

    def distance(point: Evaluation) -> float:
        return abs(point.flops_fraction - center)

    trials: dict[Policy, int | None] = {}
    for point in (*first, *sorted(front.points, key=distance)):
        trials.setdefault(point.policy, point.trial)
    return [Proposal(policy, f"transfer:{trial}") for policy, trial in trials.items()]


def proposals_to_json(proposals: Sequence[Proposal]) -> list[dict[str, Any]]:
    """Return the proposals in the format of config.json."""
    return [{"policy": one.policy.to_json(), "origin": one.origin} for one in proposals]


def read_warm_start(run: RunFolder) -> list[Proposal]:
    """Read the proposals from config.json; older runs have none."""
    _, config = open_run(run.root)
    stored = config.get(WARM_START_KEY, [])
    try:
        return [Proposal(policy_from_json(one["policy"]), str(one["origin"])) for one in stored]
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{run.config} must hold policies in {WARM_START_KEY!r}, got {error!r}; drop the field"
        ) from None


def proposals_in_space(
    proposals: Sequence[Proposal], space: PolicySpace, log: Callable[[str], None]
) -> list[Proposal]:
    """Return the proposals whose policy is in the space; log the others."""
    kept = []
    for one in proposals:
        if space.params_of(one.policy) is None:
            log(f"{one.origin} is left out: {explain_exclusion(one.policy, space)}")
        else:
            kept.append(one)
    return kept


def explain_exclusion(policy: Policy, space: PolicySpace) -> str:
    """Return the reason why a space does not contain a policy."""
    choices: Mapping[str, tuple[str, ...]] = {
        "score": space.scores,
        "allocation": space.allocations,
        "schedule": space.schedules,
    }
    for name, allowed in choices.items():
        value = getattr(policy, name)
        if value not in allowed:
            return f"its {name} {value} is not in this search ({', '.join(allowed)})"
    if len(policy.stages) not in (0, 2 * space.stages):
        return f"it is for {len(policy.stages) // 2} stages, this network has {space.stages}"
    return "this search's space does not contain its values"
