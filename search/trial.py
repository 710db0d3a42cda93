"""One trial: decode, cut, recalibrate, fine-tune, evaluate, save. Runs in a worker."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

import numpy as np
from safetensors.torch import save as as_safetensors
from torch import nn

from ..spaces.durable import write_bytes, write_json
from ..spaces.evaluation import Evaluation
from ..spaces.recipe import Recipe
from ..trainers.evaluate import evaluate
from ..trainers.loop import train
from ..trainers.saved import versions
from ..trainers.surgery import widths
from .context import Context
from .job import Job
from .schedules import GATES, SCHEDULES, STEPS, OnStep, tuning_of


def carry_out(job: Job, context: Context, on_step: OnStep | None = None) -> Evaluation:
    """Do the job; when this returns, its weights and recipe are on disk."""
    start = time.perf_counter()
    space, data, machine = context.space, context.data, context.machine
    pruned = SCHEDULES[job.policy.schedule](job, context, on_step)
    small, keep, epochs = pruned.model, pruned.keep, pruned.epochs
    if epochs < context.epochs:
        tuning = tuning_of(job.policy, context.epochs - epochs)
        log = train(small, data, tuning, seed=job.seed, teacher=context.model, machine=machine)
        epochs += log.epochs
    score = evaluate(small, data.validation, data, machine=machine)
    macs, params = (int(n) for n in space.price.of(keep))
    evaluation = Evaluation(
        trial=job.number,
        accuracy=score.accuracy,
        loss=score.loss,
        macs=macs,
        params=params,
        flops_fraction=macs / space.price.dense[0],
        params_fraction=params / space.price.dense[1],
        epochs=epochs,
        seconds=0.0,
        policy=job.policy,
        target=job.target,
        path=f"trials/{job.folder}",
    )
    check_finite(evaluation)
    save_trial(small, keep, job, context)
    return replace(evaluation, seconds=round(time.perf_counter() - start, 3))


def check_finite(evaluation: Evaluation) -> None:
    """A trial whose network yields NaN has failed; Optuna must never see its numbers."""
    for name in ("accuracy", "loss"):
        value = getattr(evaluation, name)
        if not np.isfinite(value):
            raise ArithmeticError(f"{name} must be finite, got {value}; lower the learning rate")


def save_trial(
    small: nn.Module, keep: np.typing.NDArray[np.bool_], job: Job, context: Context
) -> None:
    """Write weights, then recipe: a recipe on disk vouches for the weights beside it."""
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
    write_bytes(folder / "weights.safetensors", weights)
    write_json(folder / "recipe.json", recipe.to_json())
    for name in (STEPS, GATES):
        (folder / name).unlink(missing_ok=True)
