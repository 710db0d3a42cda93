"""Execute one trial in a worker: prune, fine-tune, evaluate, save."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from safetensors.torch import save as as_safetensors

from ...spaces.io.atomic_write import write_bytes_atomic, write_json_atomic
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.gate_history import GATE_HISTORY_FILE
from ...spaces.records.recipe import Recipe, read_recipe
from ...trainers.metrics.latency import measure_latency
from ...trainers.pruning.serialization import (
    RECIPE_FILE,
    TRIAL_WEIGHTS_FILE,
    load_pruned_model,
    software_versions,
)
from ...trainers.pruning.surgery import output_widths
from ...trainers.training.loop import TrainingProgress, train_model
from ..storage.trial_spec import RungResult, TrialSpec
from .context import TrialContext
from .oom_retry import fine_tune_settings, retry_with_smaller_batches, validation_metrics
from .schedules import GATES_CHECKPOINT, GRADUAL_CHECKPOINT, SCHEDULES, OnStep, PrunedModel
from .timing import Timer

OnRung = Callable[[RungResult], None]  # does not return if halving stops the trial


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The evaluation of a trial and the seconds of its phases."""

    evaluation: Evaluation
    begin: float  # seconds since the epoch
    seconds: dict[str, float]  # by phase: schedule, training, evaluation, saving


def execute_trial(
    spec: TrialSpec,
    context: TrialContext,
    *,
    on_step: OnStep | None = None,
    on_rung: OnRung | None = None,
) -> TrialResult:
    """Run the trial; on return, its weights and recipe are on disk.

    Args:
        spec: The policy, target and seed of the trial.
        context: The dense model, the data and the measurements.
        on_step: Called after each step of a gradual schedule.
        on_rung: Called at each rung with the accuracy so far; does not return to stop the trial.

    Returns:
        The evaluation on validation and the seconds of each phase.

    Raises:
        ArithmeticError: the accuracy or the loss is not finite.
        RuntimeError: memory runs out with the smallest batch size too.
    """
    timer, reporter = Timer(), RungReporter(spec.policy.schedule, context, on_rung)

    def attempt(context: TrialContext) -> Evaluation:
        pruned, epochs = prune_or_load(spec, context, on_step)
        timer.lap("schedule")
        reporter.start_from(pruned, context)
        if pruned.epochs < epochs:
            pruned = fine_tune(spec, context, reporter, epochs)
        timer.lap("training")
        evaluation = evaluate_trial(spec, context, pruned)
        timer.lap("evaluation")
        save_trial(pruned, spec, context)
        timer.lap("saving")
        return evaluation

    evaluation = retry_with_smaller_batches(attempt, context)
    seconds = round(sum(timer.seconds.values()), 3)
    return TrialResult(replace(evaluation, seconds=seconds), timer.begin, timer.seconds)


def prune_or_load(
    spec: TrialSpec, context: TrialContext, on_step: OnStep | None
) -> tuple[PrunedModel, float]:
    """Return the pruned model and the total of its epochs, from a schedule or from a trial."""
    if spec.continues is None:
        return SCHEDULES[spec.policy.schedule](spec, context, on_step), context.budget.epochs
    folder = context.root / spec.continues
    model = load_pruned_model(folder, context.model, context.space.channel_map)
    keep = read_recipe(folder / RECIPE_FILE).mask
    return PrunedModel(model.to(context.machine.device), keep, 0.0), context.budget.final_epochs


class RungReporter:
    """Reports the best accuracy so far at each rung of halving, which may stop the trial.

    The best so far, since a model may be worse for a while when the learning rate is high, by an
    amount that is chance.
    """

    def __init__(self, schedule: str, context: TrialContext, on_rung: OnRung | None) -> None:
        budget, self._schedule = context.budget, schedule
        shares = () if on_rung is None else budget.rung_shares
        self.pending_rungs = [share * budget.epochs for share in shares]
        self._on_rung = on_rung
        self._best = 0.0

    def start_from(self, pruned: PrunedModel, context: TrialContext) -> None:
        """Set the model; a trial that starts again does not report a rung twice."""
        self.pruned, self._context = pruned, context
        self._at_rung(pruned.epochs)

    def on_report(self, progress: TrainingProgress) -> bool:
        """Report rungs during training; always continue."""
        self._at_rung(self.pruned.epochs + progress.epoch)
        return True

    def _at_rung(self, epochs: float) -> None:
        """Report the highest rung that this many epochs reach, if it is pending."""
        passed = [index for index, goal in enumerate(self.pending_rungs) if goal <= epochs + 1e-6]
        if not passed or self._on_rung is None:
            return
        for index in passed:
            self.pending_rungs[index] = float("inf")
        context, pruned = self._context, self.pruned
        self._best = max(self._best, validation_metrics(pruned.model, context).accuracy)
        flops, params = context.space.cost_model.cost_fractions(pruned.keep)
        self._on_rung(
            RungResult(passed[-1], self._best, float(flops), float(params), epochs, self._schedule)
        )


def fine_tune(
    spec: TrialSpec, context: TrialContext, reporter: RungReporter, epochs: float
) -> PrunedModel:
    """Train until the total of epochs is reached."""
    pruned = reporter.pruned
    reports = tuple(goal - pruned.epochs for goal in reporter.pending_rungs if goal < epochs)
    tuning = fine_tune_settings(spec.policy, epochs - pruned.epochs, context)
    log = train_model(
        pruned.model,
        context.data,
        replace(tuning, reports=reports),
        seed=spec.seed,
        teacher=context.teacher,
        on_epoch=reporter.on_report,
        machine=context.machine,
    )
    return replace(pruned, epochs=pruned.epochs + log.epochs)


def evaluate_trial(spec: TrialSpec, context: TrialContext, pruned: PrunedModel) -> Evaluation:
    """Evaluate the model on validation."""
    space = context.space
    metrics = validation_metrics(pruned.model, context)
    for name in ("accuracy", "loss"):
        value = getattr(metrics, name)
        if not np.isfinite(value):  # Optuna must never see such values
            raise ArithmeticError(f"{name} must be finite, got {value}; lower the learning rate")
    milliseconds = None
    if context.budget.measures_latency:
        milliseconds = measure_latency(
            pruned.model, context.data.input_shape, machine=context.machine
        ).median_ms
    macs, params = (int(n) for n in space.cost_model.cost_of(pruned.keep))
    before = context.budget.epochs if spec.continues else 0.0
    return Evaluation(
        trial=spec.number,
        accuracy=metrics.accuracy,
        loss=metrics.loss,
        macs=macs,
        params=params,
        flops_fraction=macs / space.cost_model.dense[0],
        params_fraction=params / space.cost_model.dense[1],
        epochs=before + pruned.epochs,
        seconds=0.0,
        policy=spec.policy,
        target=spec.target,
        path=f"trials/{spec.folder}",
        latency_ms=milliseconds,
        origin=spec.origin,
        predicted=spec.predicted,
    )


def save_trial(pruned: PrunedModel, spec: TrialSpec, context: TrialContext) -> None:
    """Write the weights, then the recipe, so that a recipe on disk implies its weights."""
    small, keep = pruned.model, pruned.keep
    folder = context.root / "trials" / spec.folder
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in small.state_dict().items()}
    weights = as_safetensors(tensors)
    recipe = Recipe(
        source=context.source,
        atoms=len(keep),
        removed=tuple(int(a) for a in np.flatnonzero(~keep)),
        map_sha256=context.map_sha256,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        policy=spec.policy,
        target=spec.target,
        seed=spec.seed,
        widths=output_widths(context.space.channel_map, keep),
        versions=software_versions(),
    )
    write_bytes_atomic(folder / TRIAL_WEIGHTS_FILE, weights)
    if pruned.gate_history is not None:
        write_json_atomic(folder / GATE_HISTORY_FILE, pruned.gate_history.to_json())
    write_json_atomic(folder / RECIPE_FILE, recipe.to_json())
    for name in (GRADUAL_CHECKPOINT, GATES_CHECKPOINT):
        for path in folder.glob(f"*{name}"):
            path.unlink()
