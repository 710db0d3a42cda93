"""Transfer: the policies of an earlier search's front open a search of another network.

They are kept in the new run's config.json, so that it needs the earlier run no more.
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
    """The policies of a run's front as the first ones of another search."""
    folder, _ = open_run(run)
    front = summarize_run(folder).front
    if front is None:
        raise UserError(
            f"a transfer needs the front of a search, got none in {run}; "
            f"go on with paretoprune search --resume {run}"
        )
    return tuple(proposals_from_front(front))


def images_like(run: Path, data: object, options: dict[str, Any]) -> dict[str, Any]:
    """The options, with the run's normalisation and augmentation where its data are the same.

    Those that the user gave hold.
    """
    kept = open_run(run)[1]
    settings = kept["settings"]
    if kept["data_given"] or data != settings.get("data"):
        return options
    found = {name: settings.get(name) for name in ("mean", "std", "augment")}
    if options.get("mean") is not None or options.get("std") is not None:
        found.pop("mean")
        found.pop("std")
    return {name: value for name, value in found.items() if value is not None} | options


def proposals_from_front(front: Front) -> list[Proposal]:
    """Each policy of the front once: the answer at the target, then those nearest to it in size.

    A transferred policy is tried at the new target, so those found near the old one come first.
    """
    first = [front.at_target] if front.at_target else []
    middle = first[0].flops_fraction if first else 1.0

    def distance(point: Evaluation) -> float:
        return abs(point.flops_fraction - middle)

    trials: dict[Policy, int | None] = {}
    for point in (*first, *sorted(front.points, key=distance)):
        trials.setdefault(point.policy, point.trial)
    return [Proposal(policy, f"transfer:{trial}") for policy, trial in trials.items()]


def proposals_to_json(proposals: Sequence[Proposal]) -> list[dict[str, Any]]:
    """The proposals as config.json keeps them."""
    return [{"policy": one.policy.to_json(), "origin": one.origin} for one in proposals]


def read_warm_start(run: RunFolder) -> list[Proposal]:
    """What `warm_start_json` wrote into the run's config.json; older runs have none."""
    _, config = open_run(run.root)
    kept = config.get(WARM_START_KEY, [])
    try:
        return [Proposal(policy_from_json(one["policy"]), str(one["origin"])) for one in kept]
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{run.config} must hold policies in {WARM_START_KEY!r}, got {error!r}; drop the field"
        ) from None


def proposals_in_space(
    proposals: Sequence[Proposal], space: PolicySpace, say: Callable[[str], None]
) -> list[Proposal]:
    """The proposals whose policy the space contains; the others are named."""
    kept = []
    for one in proposals:
        if space.params_of(one.policy) is None:
            say(f"{one.origin} is left out: {explain_exclusion(one.policy, space)}")
        else:
            kept.append(one)
    return kept


def explain_exclusion(policy: Policy, space: PolicySpace) -> str:
    """Why a space does not contain a policy, in words."""
    choices: Mapping[str, tuple[str, ...]] = {
        "score": space.scores,
        "allocation": space.allocations,
        "schedule": space.schedules,
    }
    for name, allowed in choices.items():
        value = getattr(policy, name)
        if value not in allowed:
            return f"its {name} {value} is none of this search's: {', '.join(allowed)}"
    if len(policy.stages) not in (0, 2 * space.stages):
        return f"it tells {len(policy.stages) // 2} stages apart, this network has {space.stages}"
    return "this search's space does not contain its values"
