"""Gather the evidence that a set of policies reads: scores, ensembles, loss curves.

Whatever a policy does not read is not measured; what was measured before is read from the folder.
The pieces do not depend on each other, save that loss curves need the order that a score gives:
`Do` may measure them one after the other, or side by side and elsewhere; an ensemble in parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..spaces.graph.channels import ChannelMap
from ..spaces.policy.loss_curves import CurveSettings, curves_wanted
from ..spaces.policy.measurements import Evidence
from ..spaces.policy.policy import Policy, check_score
from ..trainers.data.types import Data
from .loss_curves.prober import Subject
from .loss_curves.store import with_curves
from .mask_ensembles import PRESETS as ENSEMBLES
from .mask_ensembles import (
    Check,
    Ensemble,
    EnsembleSettings,
    Measurable,
    Step,
    ensemble_steps,
    is_ensemble,
    settings_named,
    with_ensemble,
)
from .scores.gates import GATES, gate_evidence
from .scores.measure import measure_evidence
from .scores.registry import all_scores
from .staged_jobs import Piece, changed, in_turn, single

OnProgress = Callable[[str, int, int], None]  # what is measured, how far, of how much


def tell_nobody(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What measuring may take; None: enough."""

    images: int | None = None  # that one ensemble is measured on: a mask's whole set counts
    samples: int | None = None  # masks of one ensemble, instead of what the images allow
    seconds: float | None = None  # of one ensemble
    curve_images: int | None = None  # that a probe of a loss curve forwards

    def of(self, settings: EnsembleSettings) -> EnsembleSettings:
        """The settings of an ensemble within these limits."""
        if self.images is not None:
            settings = settings.within(self.images)
        return replace(settings, samples=self.samples or settings.samples, seconds=self.seconds)


@dataclass(frozen=True, slots=True, eq=False)
class Measuring:
    """On what evidence is measured, and where it is kept."""

    model: nn.Module
    channel_map: ChannelMap
    data: Data
    seed: int
    folder: Path | None = None
    limits: Limits = Limits()


Task = Callable[[Measuring, OnProgress], Any]
Do = Callable[[Sequence[Piece[Task]], Measuring], list[Any]]  # what the pieces found


def here(pieces: Sequence[Piece[Task]], on: Measuring) -> list[Any]:
    """Do them in this process, one after the other, and show no progress."""
    return in_turn(pieces, lambda task: task(on, tell_nobody))


def takes_many_runs(score: str) -> bool:
    """True for scores that more than one pass over the images makes."""
    return is_ensemble(score) or score == GATES


def check_known(score: str, what: str = "score") -> None:
    """Raise unless there is a score of this name; `what` is where it was named."""
    if is_ensemble(score):
        settings_named(score)
    else:
        check_score(score, sorted({*all_scores(), *ENSEMBLES, GATES}), what)


def gather_evidence(
    policies: Iterable[Policy], on: Measuring, do: Do = here, tell: OnProgress = tell_nobody
) -> Evidence:
    """All that these policies read; who does a task tells of it, `tell` of ensembles."""
    wanted = list(policies)
    names = {policy.score for policy in wanted}
    for name in names:
        check_known(name)
    pieces = [ensemble(name, on, tell) for name in sorted(names) if is_ensemble(name)]
    shared = sorted(name for name in names if not takes_many_runs(name))
    tasks: list[Task] = [gates] if GATES in names else []
    tasks.append(partial(scores, shared))
    pieces += [single(task) for task in tasks]
    evidence = joined(do(pieces, on))
    curves = [
        partial(loss_curves, policy, Evidence("", {policy.score: evidence.scores[policy.score]}))
        for policy in curves_wanted(wanted).values()
    ]
    return joined([evidence, *do([single(task) for task in curves], on)])


def joined(parts: Sequence[Evidence]) -> Evidence:
    """What several pieces have found, as one."""
    whole, counts = Evidence("".join(part.key for part in parts), {}), Counter[str]()
    for part in parts:
        whole.scores.update(part.scores)
        whole.errors.update(part.errors)
        whole.curves.update(part.curves)
        counts.update(part.counts)
    whole.counts.update(counts)
    return whole


def scores(names: list[str], on: Measuring, tell: OnProgress) -> Evidence:
    """The scores that share one pass over the images, and those of weights."""
    return measure_evidence(
        on.model,
        on.channel_map,
        on.data,
        folder=on.folder,
        seed=on.seed,
        names=names,
        on_progress=partial(tell, "scores"),
    )


class Listener:
    """Passes progress on, and knows whether there was any: of what was known, none is told."""

    def __init__(self, tell: OnProgress) -> None:
        self._tell, self.heard = tell, False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Hear it, and tell it on."""
        self.heard = True
        self._tell(what, done, total)


@dataclass(frozen=True, slots=True, eq=False)
class OfEnsemble:
    """A task of an ensemble: it reads nothing in the folder and leaves nothing there."""

    step: Step

    def __call__(self, on: Measuring, tell: OnProgress) -> Any:
        """Do it; who asked for it tells of it."""
        return self.step(Measurable(on.model, on.channel_map, on.data))


def ensemble(name: str, on: Measuring, tell: OnProgress) -> Piece[Task]:
    """An ensemble's scores and errors, within the limits."""
    settings, listener = on.limits.of(settings_named(name)), Listener(tell)

    def report(check: Check) -> None:
        what = f"{name}, held-out R2 {check.held_out_r2:.2f}"
        listener(what, check.samples, settings.most_samples)

    steps = ensemble_steps(settings, on.seed, on.folder, report)
    found = yield from changed(steps, OfEnsemble)
    counts = counts_of(found) if listener.heard else {}
    return with_ensemble(Evidence("", {}, counts=counts), name, found)


def counts_of(found: Ensemble) -> dict[str, int]:
    """What measuring an ensemble took: masks, and images forwards and backwards under them."""
    effort = found.effort
    return {
        "masks": effort.samples,
        "masked_forwards": effort.forwards,
        "masked_backwards": effort.backwards,
    }


def gates(on: Measuring, tell: OnProgress) -> Evidence:
    """The values of trained gates, as a score."""
    return gate_evidence(
        on.model,
        on.channel_map,
        on.data,
        folder=on.folder,
        seed=on.seed,
        images=on.limits.images,
        on_progress=partial(tell, "trained gates"),
    )


def loss_curves(policy: Policy, known: Evidence, on: Measuring, tell: OnProgress) -> Evidence:
    """The loss curves of a policy whose score is known."""
    images, listener = on.limits.curve_images, Listener(tell)
    found = with_curves(
        known,
        [policy],
        Subject(on.model, on.channel_map, on.data),
        folder=on.folder,
        settings=CurveSettings() if images is None else CurveSettings(images=images),
        on_progress=partial(listener, f"loss curves of {policy.score} ({policy.probe})"),
    )
    probes = sum(len(curves.rise) for curves in found.curves.values())
    return replace(found, counts={"probes": probes} if listener.heard else {})
