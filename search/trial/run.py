"""One trial: decode, cut, recalibrate, fine-tune, evaluate, save. Runs in a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from safetensors.torch import save as as_safetensors

from ...spaces.io.atomic_write import write_bytes, write_json
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.gate_history import COURSE
from ...spaces.records.recipe import Recipe, read_recipe
from ...trainers.metrics.latency import latency
from ...trainers.pruning.serialization import RECIPE, WEIGHTS, load_small, versions
from ...trainers.pruning.surgery import widths
from ...trainers.training.loop import Progress, train
from ..storage.trial_spec import Job, Rung
from .context import Context
from .oom_retry import score_of, tuning_of, within_memory
from .schedules import GATES, SCHEDULES, STEPS, OnStep, Pruned
from .timing import Watch

OnRung = Callable[[Rung], None]  # does not come back if the trial is to stop


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of a trial, and where its time went."""

    evaluation: Evaluation
    begin: float  # seconds since the epoch
    seconds: dict[str, float]  # by what was done: schedule, training, evaluation, saving


def carry_out(
    job: Job, context: Context, *, on_step: OnStep | None = None, on_rung: OnRung | None = None
) -> Carried:
    """Do the job; when this returns, its weights and recipe are on disk."""
    watch, judged = Watch(), Judged(job.policy.schedule, context, on_rung)

    def attempt(context: Context) -> Evaluation:
        pruned, epochs = start_of(job, context, on_step)
        watch.note("schedule")
        judged.begin(pruned, context)
        if pruned.epochs < epochs:
            pruned = fine_tune(job, context, judged, epochs)
        watch.note("training")
        evaluation = evaluated(job, context, pruned)
        watch.note("evaluation")
        save_trial(pruned, job, context)
        watch.note("saving")
        return evaluation

    evaluation = within_memory(attempt, context)
    seconds = round(sum(watch.seconds.values()), 3)
    return Carried(replace(evaluation, seconds=seconds), watch.begin, watch.seconds)


def start_of(job: Job, context: Context, on_step: OnStep | None) -> tuple[Pruned, float]:
    """The network that is fine-tuned, and up to how many epochs in all."""
    if job.continues is None:
        return SCHEDULES[job.policy.schedule](job, context, on_step), context.effort.epochs
    folder = context.root / job.continues
    model = load_small(folder, context.model, context.space.channel_map)
    keep = read_recipe(folder / RECIPE).mask
    return Pruned(model.to(context.machine.device), keep, 0.0), context.effort.final_epochs


class Judged:
    """A network on its way up the rungs: at each, its accuracy is shown to who may stop it.

    It is the best until then: while the learning rate is high a network may be worse for a while
    than before any training, and by how much is chance.
    """

    def __init__(self, schedule: str, context: Context, on_rung: OnRung | None) -> None:
        effort, self._schedule = context.effort, schedule
        self.ahead = [] if on_rung is None else [share * effort.epochs for share in effort.rungs]
        self._on_rung = on_rung
        self._best = 0.0

    def begin(self, pruned: Pruned, context: Context) -> None:
        """This is the network; begun again, it is not judged twice at a rung."""
        self.pruned, self._context = pruned, context
        self._at_rung(pruned.epochs)

    def each_report(self, progress: Progress) -> bool:
        """Called by the training loop."""
        self._at_rung(self.pruned.epochs + progress.epoch)
        return True

    def _at_rung(self, epochs: float) -> None:
        """Be judged at the highest rung that this many epochs reach, if it is a new one."""
        passed = [index for index, goal in enumerate(self.ahead) if goal <= epochs + 1e-6]
        if not passed or self._on_rung is None:
            return
        for index in passed:
            self.ahead[index] = float("inf")
        context, pruned = self._context, self.pruned
        self._best = max(self._best, score_of(pruned.model, context).accuracy)
        flops, params = context.space.price.fraction(pruned.keep)
        self._on_rung(
            Rung(passed[-1], self._best, float(flops), float(params), epochs, self._schedule)
        )


def fine_tune(job: Job, context: Context, judged: Judged, epochs: float) -> Pruned:
    """Train to the end of the epochs."""
    pruned = judged.pruned
    reports = tuple(goal - pruned.epochs for goal in judged.ahead if goal < epochs)
    tuning = tuning_of(job.policy, epochs - pruned.epochs, context)
    log = train(
        pruned.model,
        context.data,
        replace(tuning, reports=reports),
        seed=job.seed,
        teacher=context.teacher,
        on_epoch=judged.each_report,
        machine=context.machine,
    )
    return replace(pruned, epochs=pruned.epochs + log.epochs)


def evaluated(job: Job, context: Context, pruned: Pruned) -> Evaluation:
    """The figures of the network as it is now, on validation."""
    space = context.space
    score = score_of(pruned.model, context)
    for name in ("accuracy", "loss"):
        value = getattr(score, name)
        if not np.isfinite(value):  # Optuna must never see such numbers
            raise ArithmeticError(f"{name} must be finite, got {value}; lower the learning rate")
    milliseconds = None
    if context.effort.latency:
        milliseconds = latency(
            pruned.model, context.data.input_shape, machine=context.machine
        ).median_ms
    macs, params = (int(n) for n in space.price.of(pruned.keep))
    before = context.effort.epochs if job.continues else 0.0
    return Evaluation(
        trial=job.number,
        accuracy=score.accuracy,
        loss=score.loss,
        macs=macs,
        params=params,
        flops_fraction=macs / space.price.dense[0],
        params_fraction=params / space.price.dense[1],
        epochs=before + pruned.epochs,
        seconds=0.0,
        policy=job.policy,
        target=job.target,
        path=f"trials/{job.folder}",
        latency_ms=milliseconds,
        origin=job.origin,
        predicted=job.predicted,
    )


def save_trial(pruned: Pruned, job: Job, context: Context) -> None:
    """Write weights, then recipe: a recipe on disk vouches for what lies beside it."""
    small, keep = pruned.model, pruned.keep
    folder = context.root / "trials" / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in small.state_dict().items()}
    weights = as_safetensors(tensors)
    recipe = Recipe(
        source=context.source,
        atoms=len(keep),
        removed=tuple(int(a) for a in np.flatnonzero(~keep)),
        map_sha256=context.map_sha256,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        policy=job.policy,
        target=job.target,
        seed=job.seed,
        widths=widths(context.space.channel_map, keep),
        versions=versions(),
    )
    write_bytes(folder / WEIGHTS, weights)
    if pruned.course is not None:
        write_json(folder / COURSE, pruned.course.to_json())
    write_json(folder / RECIPE, recipe.to_json())
    for name in (STEPS, GATES):
        for path in folder.glob(f"*{name}"):
            path.unlink()
