"""Screening: thousands of policies are decoded, priced and foretold before the first trial.

Every slot of the plan that is to be screened gets candidates, decoded at its own target. Some of
all are rehearsed: cut and looked at, untrained. What comes of it foretells the others; each slot's
few with the least foretold loss are rehearsed too. Of those that are level with a slot's best, the
one farthest (in atoms) from what was taken before is tried, so that the trials are not all of the
same network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.rehearsal import Foretelling, foretelling
from ..spaces.decode import Space, decode_many
from ..spaces.evidence import Evidence
from ..spaces.parts import combine
from ..spaces.policy import Policy
from ..spaces.target import Target
from .answers import Drawn
from .plan import Slot
from .policy_space import PolicySpace

POLICIES = 2048  # decoded in all
LEAST = 64  # for one slot
FIRST = 96  # masks that are rehearsed before any is foretold
FEW = 4  # of a slot's candidates are rehearsed because of what is foretold of them
DRAWS = 6  # at most, for each policy whose mask is known beforehand
LEVEL = 0.02  # rehearsed losses closer than this are level: about their standard error
WORTH = "taylor"  # the score by which the shares that groups lose are weighed

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]
Rehearse = Callable[[Masks], Values]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy for one slot, where it comes from, and what is foretold of it."""

    policy: Policy
    origin: str  # transfer:TRIAL, preset:NAME, own:SCORE, screened, refined:TRIAL or sampled
    predicted: float | None = None  # rise of the loss
    params: Mapping[str, Any] | None = None  # the answers that make the policy, where known


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
        masks, reachable = decode_many(
            policies, [target] * len(policies), self.evidence, self.space
        )
        return masks, np.where(reachable, self.rises(masks), np.inf)

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

    def foretelling(self, evidence: Evidence, space: Space) -> Foretelling | None:
        """Fitted to all of them."""
        atoms = space.channel_map.atoms
        masks = np.frombuffer(b"".join(self.losses), dtype=bool).reshape(-1, atoms)
        worth = np.ones(atoms)
        if WORTH in evidence.scores:
            worth = combine(evidence.scores[WORTH], space.channel_map, "sum")
        losses = np.array(list(self.losses.values()))
        return foretelling(masks, losses, worth, space.channel_map)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Policies for one slot that reach its target, and their masks [n, A]; no two alike."""

    slot: Slot
    policies: list[Policy]
    masks: Masks


def screen(
    slots: Sequence[Slot],
    policy_space: PolicySpace,
    blind: Screen,
    rehearse: Rehearse | None,
    *,
    rng: np.random.Generator,
    opening: Sequence[tuple[Policy, Target]] = (),
) -> tuple[dict[int, Proposal], Screen]:
    """The best diverse policy for each of the slots, by index, and a screen that foretells.

    None makes a network that one of the `opening` makes: those are tried in any case.
    """
    if not slots or rehearse is None:
        return {}, blind
    count = max(LEAST, POLICIES // len(slots))
    drawn = [candidates(slot, policy_space, count, blind, rng) for slot in slots]
    drawn = [one for one in drawn if len(one.masks)]
    if not drawn:
        return {}, blind
    shown = Rehearsed(rehearse)
    whole = np.ones((1, blind.space.channel_map.atoms), dtype=bool)
    each = -(-FIRST // len(drawn))  # at least one
    shown.of(np.concatenate([whole, *(one.masks[:each] for one in drawn)]))
    screen = replace(
        blind,
        known=shown.foretelling(blind.evidence, blind.space),
        dense_loss=float(shown.of(whole)[0]),
    )
    few = [one.masks[np.argsort(screen.rises(one.masks), kind="stable")[:FEW]] for one in drawn]
    shown.of(np.concatenate(few))
    screen = replace(screen, known=shown.foretelling(blind.evidence, blind.space))
    return chosen(drawn, shown, screen, masks_of(opening, blind)), screen


def masks_of(opening: Sequence[tuple[Policy, Target]], on: Screen) -> set[bytes]:
    """Of the policies whose mask is known before they are carried out."""
    at_once = [(policy, target) for policy, target in opening if policy.schedule == "one-shot"]
    return {on.foretell([policy], target)[0][0].tobytes() for policy, target in at_once}


def chosen(
    drawn: Sequence[Candidates], shown: Rehearsed, screen: Screen, used: set[bytes]
) -> dict[int, Proposal]:
    """Of each slot's rehearsed candidates one that is level with the best, unlike those before."""
    taken: list[NDArray[np.bool_]] = []
    found = {}
    for one in drawn:
        keys = [mask.tobytes() for mask in one.masks]
        rows = [i for i, key in enumerate(keys) if key in shown.losses and key not in used]
        losses = shown.of(one.masks[rows])
        if not np.isfinite(losses).any():
            continue  # none is left, or none has a number
        level = np.flatnonzero(losses <= losses.min() + LEVEL)
        best = rows[int(level[farthest(one.masks[rows][level], losses[level], taken)])]
        taken.append(one.masks[best])
        used.add(keys[best])
        rise = shown.losses[keys[best]] - screen.dense_loss
        found[one.slot.index] = Proposal(usually_tuned(one.policies[best]), "screened", rise)
    return found


def farthest(masks: Masks, losses: Values, taken: Sequence[NDArray[np.bool_]]) -> int:
    """The mask that differs most from those that were taken; if none were, the best."""
    if not taken:
        return int(np.argmin(losses))
    return int(np.argmax((masks[:, None, :] != np.stack(taken)).sum(axis=2).min(axis=1)))


def candidates(
    slot: Slot, policy_space: PolicySpace, count: int, on: Screen, rng: np.random.Generator
) -> Candidates:
    """Presets and random policies."""
    presets = [p for p in policy_space.presets.values() if p.schedule == "one-shot"]
    policies = [*presets, *at_once(policy_space, count, rng)]
    masks, rises = on.foretell(policies, slot.target) if policies else (np.zeros((0, 0)), ())
    unlike = {
        mask.tobytes(): row
        for row, mask in reversed(list(enumerate(masks)))
        if np.isfinite(rises[row])
    }
    rows = sorted(unlike.values())
    return Candidates(slot, [policies[row] for row in rows], masks[rows].astype(bool))


def usually_tuned(policy: Policy) -> Policy:
    """The policy with the usual recipe of the fine-tune: nothing foretells which is best."""
    usual = Policy(policy.score)
    return replace(policy, learning_rate=usual.learning_rate, distill=usual.distill)


def at_once(policy_space: PolicySpace, count: int, rng: np.random.Generator) -> list[Policy]:
    """Random policies whose mask is known before they are carried out, `count` at most."""
    if "one-shot" not in policy_space.schedules:
        return []
    drawn = (policy_space.sample(Drawn(rng)) for _ in range(DRAWS * count))
    known = (p for p in drawn if p.schedule == "one-shot" and p.allocation != "uniform")
    return list(islice(known, count))
