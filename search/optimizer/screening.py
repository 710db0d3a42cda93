"""Screening: thousands of policies are decoded, priced and foretold before the first trial.

Every target of the slots that are to be screened gets candidates. Some of all are rehearsed: cut
and looked at, untrained. What comes of it foretells the others; each target's few with the least
foretold loss are rehearsed too, then, generation by generation, the most promising variations of
those that did best. Of those that are level with a target's best, the one farthest (in atoms) from
what was taken before is tried, so that the trials are not all of the same network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...analysis.untrained_loss import Foretelling, foretelling
from ...spaces.allocations.decode import Space, decode_many
from ...spaces.cost.target import Target
from ...spaces.policy.layer_scores import combine
from ...spaces.policy.measurements import Evidence
from ...spaces.policy.policy import Policy
from .search_space import PolicySpace
from .suggesters import Drawn, Varied
from .target_plan import Slot

POLICIES = 2048  # decoded in all
LEAST = 64  # for one target
FIRST = 96  # masks that are rehearsed before any is foretold
FEW = 4  # of a target's candidates are rehearsed at a time because of what is foretold of them
GENERATIONS = 4  # of variations
PARENTS, VARIATIONS = 3, 24  # of a target, and of each of them
DRAWS = 6  # at most, for each policy whose mask is known beforehand
LEVEL = 0.04  # rehearsed losses closer than this are level: about their standard error
WORTH = "taylor"  # the score by which the shares that groups lose are weighed

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]
Answers = Mapping[str, Any]
Answered = tuple[Policy, Answers]  # a policy and the answers that make it
Rehearse = Callable[[Masks], Values]


def never() -> bool:
    """There is time enough."""
    return False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy for one slot, where it comes from, and what is foretold of it."""

    policy: Policy
    origin: str  # transfer:TRIAL, preset:NAME, own:SCORE, screened, refined:TRIAL or sampled
    predicted: float | None = None  # rise of the loss
    params: Answers | None = None  # the answers that make the policy; None: its space tells


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """What can be told of policies before they are carried out."""

    space: Space
    evidence: Evidence
    known: Foretelling | None = None  # None: nothing is foretold, masks are only told apart
    dense_loss: float = 0.0

    def foretell(self, policies: Sequence[Policy], target: Target) -> tuple[Masks, Values]:
        """Masks [n, A] of the policies, and the rises [n] of the loss that are foretold.

        Policies that cannot reach the target have a rise of infinity.
        """
        masks, reachable = self.decoded(policies, target)
        return masks, np.where(reachable, self.rises(masks), np.inf)

    def decoded(
        self, policies: Sequence[Policy], target: Target
    ) -> tuple[Masks, NDArray[np.bool_]]:
        """Masks [n, A] of the policies, and which of them [n] reach the target."""
        return decode_many(policies, [target] * len(policies), self.evidence, self.space)

    def masks_in(self, keys: Iterable[bytes]) -> Masks:
        """Masks [n, A] from their bytes."""
        atoms = self.space.channel_map.atoms
        return np.frombuffer(b"".join(keys), dtype=bool).reshape(-1, atoms)

    def with_known(self, shown: Rehearsed) -> Screen:
        """The same, fitted to all rehearsals so far."""
        masks, losses = self.masks_in(shown.losses), np.array(list(shown.losses.values()))
        worth = np.ones(masks.shape[1])
        if WORTH in self.evidence.scores:
            worth = combine(self.evidence.scores[WORTH], self.space.channel_map, "sum")
        return replace(self, known=foretelling(masks, losses, worth, self.space.channel_map))

    def rises(self, masks: Masks) -> Values:
        """The foretold rises of the loss; 0 where nothing is foretold."""
        if self.known is None or not len(masks):
            return np.zeros(len(masks))
        return self.known.means(masks) - self.dense_loss


@dataclass(slots=True, eq=False)
class Rehearsed:
    """What rehearsals have shown so far; no mask is rehearsed twice."""

    rehearse: Rehearse
    losses: dict[bytes, float] = field(default_factory=dict)

    def of(self, masks: Masks) -> Values:
        """Losses of masks [n, A]: [n]; infinite where there is no number."""
        new = {mask.tobytes(): mask for mask in masks if mask.tobytes() not in self.losses}
        if new:
            found = self.rehearse(np.stack(list(new.values())))
            self.losses |= dict(zip(new, np.where(np.isfinite(found), found, np.inf), strict=True))
        return np.array([self.losses[mask.tobytes()] for mask in masks])


@dataclass(slots=True, eq=False)
class Candidates:
    """Policies that reach one target, by their masks: no two alike."""

    target: Target
    policies: dict[bytes, Answered] = field(default_factory=dict)

    def add(self, answered: Sequence[Answered], on: Screen) -> None:
        """Those whose masks are new."""
        if answered:
            masks, reachable = on.decoded([policy for policy, _ in answered], self.target)
            for one, mask, reaches in zip(answered, masks, reachable, strict=True):
                if reaches:
                    self.policies.setdefault(mask.tobytes(), one)

    def promising(self, on: Screen, shown: Rehearsed) -> Masks:
        """The few of which most is foretold, of those that were not rehearsed."""
        masks = on.masks_in(key for key in self.policies if key not in shown.losses)
        return masks[np.argsort(on.rises(masks), kind="stable")[:FEW]]

    def vary(
        self, policy_space: PolicySpace, shown: Rehearsed, on: Screen, rng: np.random.Generator
    ) -> None:
        """Add variations of those whose rehearsals went best."""
        rehearsed = [key for key in self.policies if key in shown.losses]
        parents = sorted(rehearsed, key=lambda key: shown.losses[key])[:PARENTS]
        varied = [Varied(self.policies[key][1], rng) for key in parents for _ in range(VARIATIONS)]
        answered = [(policy_space.sample(one), one.answers) for one in varied]
        self.add([one for one in answered if at_once(one[0])], on)


def screen(
    slots: Sequence[Slot],
    policy_space: PolicySpace,
    blind: Screen,
    rehearse: Rehearse | None,
    *,
    rng: np.random.Generator,
    opening: Sequence[tuple[Policy, Target]] = (),
    late: Callable[[], bool] = never,
) -> tuple[dict[int, Proposal], Screen]:
    """The best diverse policy for each of the slots, by index, and a screen that foretells.

    None makes a network that one of the `opening` makes: those are tried in any case. There are
    fewer generations of variations where it gets `late`.
    """
    if not slots or rehearse is None:
        return {}, blind
    drawn = candidates([slot.target for slot in slots], policy_space, blind, rng)
    if not drawn:
        return {}, blind
    shown = Rehearsed(rehearse)
    whole = np.ones((1, blind.space.channel_map.atoms), dtype=bool)
    each = -(-FIRST // len(drawn))  # at least one
    first = [blind.masks_in(islice(one.policies, each)) for one in drawn.values()]
    shown.of(np.concatenate([whole, *first]))
    screen = replace(blind, dense_loss=float(shown.of(whole)[0])).with_known(shown)
    for generation in range(1 + GENERATIONS):
        if generation and late():
            break
        if generation:
            for one in drawn.values():
                one.vary(policy_space, shown, screen, rng)
        shown.of(np.concatenate([one.promising(screen, shown) for one in drawn.values()]))
        screen = screen.with_known(shown)
    return chosen(slots, drawn, shown, screen, keys_of(opening, blind), policy_space), screen


def candidates(
    targets: Sequence[Target], policy_space: PolicySpace, on: Screen, rng: np.random.Generator
) -> dict[Target, Candidates]:
    """Presets and random policies for each of the targets that any of them reaches."""
    presets = [
        (policy, params)
        for policy in policy_space.presets.values()
        if at_once(policy) and (params := policy_space.params_of(policy)) is not None
    ]
    drawn = {target: Candidates(target) for target in targets}
    count = max(LEAST, POLICIES // len(drawn))
    for one in drawn.values():
        one.add([*presets, *at_random(policy_space, count, rng)], on)
    return {target: one for target, one in drawn.items() if one.policies}


def keys_of(opening: Sequence[tuple[Policy, Target]], on: Screen) -> set[bytes]:
    """Masks of the policies whose mask is known before they are carried out."""
    known = [(policy, target) for policy, target in opening if at_once(policy)]
    return {on.decoded([policy], target)[0][0].tobytes() for policy, target in known}


def chosen(
    slots: Sequence[Slot],
    drawn: Mapping[Target, Candidates],
    shown: Rehearsed,
    screen: Screen,
    used: set[bytes],
    policy_space: PolicySpace,
) -> dict[int, Proposal]:
    """For each slot a rehearsed candidate that is level with the best, unlike those before."""
    taken: list[NDArray[np.bool_]] = []
    found = {}
    for slot in (slot for slot in slots if slot.target in drawn):
        policies = drawn[slot.target].policies
        keys = [key for key in policies if key in shown.losses and key not in used]
        masks = screen.masks_in(keys)
        losses = shown.of(masks)
        if not np.isfinite(losses).any():
            continue  # none is left, or none has a number
        level = np.flatnonzero(losses <= losses.min() + LEVEL)
        best = int(level[farthest(masks[level], losses[level], taken)])
        taken.append(masks[best])
        used.add(keys[best])
        rise = float(losses[best]) - screen.dense_loss
        policy, answers = policies[keys[best]]
        tuned = usually_tuned(policy, policy_space)
        found[slot.index] = Proposal(tuned, "screened", rise, answers if tuned == policy else None)
    return found


def farthest(masks: Masks, losses: Values, taken: Sequence[NDArray[np.bool_]]) -> int:
    """The mask that differs most from those that were taken; if none were, the best."""
    if not taken:
        return int(np.argmin(losses))
    return int(np.argmax((masks[:, None, :] != np.stack(taken)).sum(axis=2).min(axis=1)))


def usually_tuned(policy: Policy, policy_space: PolicySpace) -> Policy:
    """One that is cut at once with the usual recipe after it, if the space has that: nothing
    foretells which is best.
    """
    if not at_once(policy):
        return policy
    usual = Policy(policy.score)
    tuned = replace(policy, refit=True, learning_rate=usual.learning_rate, distill=usual.distill)
    return policy if policy_space.params_of(tuned) is None else tuned


def at_once(policy: Policy) -> bool:
    """Whether its mask is known before it is carried out."""
    return policy.schedule == "one-shot"


def at_random(policy_space: PolicySpace, count: int, rng: np.random.Generator) -> list[Answered]:
    """Random policies whose mask is known, `count` at most; uniform cuts are a control."""
    if "one-shot" not in policy_space.schedules:
        return []
    drawn = (Drawn(rng) for _ in range(DRAWS * count))
    answered = ((policy_space.sample(one), one.answers) for one in drawn)
    known = (one for one in answered if at_once(one[0]) and one[0].allocation != "uniform")
    return list(islice(known, count))
