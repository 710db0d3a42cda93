"""Fine-tune one network fully and resumably; the best weights on validation are kept.

In the work folder, `best.safetensors` holds the best weights so far with their metrics, and
`checkpoint.safetensors` the session. A resumed run repeats the epochs since its checkpoint with
the same result, so the two files need not be written at the same time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ...spaces.errors import UserError
from ..data.splits import DataSplits
from ..metrics.evaluate import ClassificationMetrics, evaluate
from ..runtime.device import DeviceConfig
from .checkpoint import check_same_settings, restore_session, save_session, save_tensors
from .distillation import Teacher
from .distributed import ProcessGroup, all_reduce_sum, broadcast_buffers, shard_split, wrap_ddp
from .loop import TrainingProgress, run_session
from .optimizer import TrainingSettings
from .session import AuxiliaryLosses, TrainingSession, mix_seeds

SAVE_SECONDS = 60.0
IMAGES_PER_REPORT = 16_384  # a longer epoch has progress reports and saves within it
OnFineTuneReport = Callable[[TrainingProgress, "BestWeights"], None]


@dataclass(frozen=True, slots=True)
class BestWeights:
    """The epoch and metrics of the best weights, and the accuracy before the first epoch."""

    epoch: float
    accuracy: float
    loss: float
    accuracy_before: float


@dataclass(frozen=True, slots=True, eq=False)
class FineTuneJob:
    """A network to fine-tune, its data and how; `settings` must be the same on resume."""

    model: nn.Module
    data: DataSplits
    tuning: TrainingSettings
    seed: int
    teacher: Teacher | None
    machine: DeviceConfig
    work_folder: Path
    settings: dict[str, object]
    save_seconds: float = SAVE_SECONDS


def run_fine_tune(
    job: FineTuneJob, process_group: ProcessGroup, on_report: OnFineTuneReport
) -> tuple[BestWeights, ClassificationMetrics | None]:
    """Start or resume a fine-tune; the model ends with its best weights.

    Returns:
        The best weights' metrics on validation, and on rank 0 those of one test evaluation.
    """
    session, shard = build_session(job, process_group)
    checkpoint = job.work_folder / "checkpoint.safetensors"
    best_file = job.work_folder / "best.safetensors"
    if checkpoint.exists():
        restore_session(session, checkpoint, job.settings)
    session.forward = wrap_ddp(session.model, process_group)
    best = read_best_record(best_file, job.settings) or evaluate_and_keep_best(
        job, session, shard, process_group, None
    )
    saved_at = time.monotonic()

    def report(progress: TrainingProgress) -> bool:
        nonlocal best, saved_at
        if progress.step % session.steps_per_epoch == 0 or progress.step == progress.steps:
            best = evaluate_and_keep_best(job, session, shard, process_group, best)
        if process_group.is_leader and time.monotonic() - saved_at >= job.save_seconds:
            save_session(session, checkpoint, job.settings)
            saved_at = time.monotonic()
        on_report(progress, best)
        return True

    run_session(session, report)
    if not process_group.is_leader:
        return best, None
    load_best_weights(job.model, best_file)
    if job.data.test is None:
        return best, None
    return best, evaluate(job.model, job.data.test, job.data, machine=job.machine)


def build_session(
    job: FineTuneJob, process_group: ProcessGroup
) -> tuple[TrainingSession, DataSplits]:
    """The session of this process, and the data with its shard of the rows."""
    data = replace(
        job.data,
        train=shard_split(job.data.train, process_group, equal=True),
        validation=shard_split(job.data.validation, process_group, equal=False),
    )
    batch_size = max(1, job.tuning.batch_size // process_group.size)
    parts = -(-len(job.data.train) // IMAGES_PER_REPORT)
    reports = [n / parts for n in range(1, int(job.tuning.epochs * parts)) if n % parts]
    tuning = replace(job.tuning, batch_size=batch_size, reports=tuple(reports))
    seed = job.seed if process_group.is_leader else mix_seeds(job.seed, process_group.rank)
    guidance = AuxiliaryLosses(teacher=job.teacher)
    session = TrainingSession(
        job.model, data, tuning, seed=seed, guidance=guidance, machine=job.machine
    )
    return session, data


def evaluate_and_keep_best(
    job: FineTuneJob,
    session: TrainingSession,
    shard: DataSplits,
    process_group: ProcessGroup,
    best: BestWeights | None,
) -> BestWeights:
    """Evaluate on validation in all processes; rank 0 writes the weights if they are the best."""
    broadcast_buffers(session.model, process_group)
    metrics = evaluate(session.model, shard.validation, shard, machine=job.machine)
    sums = (metrics.accuracy * metrics.images, metrics.loss * metrics.images, metrics.images)
    hits, loss, images = all_reduce_sum(sums, process_group, job.machine.device)
    accuracy, loss = round(hits) / images, loss / images
    if best is not None and (accuracy, -loss) <= (best.accuracy, -best.loss):
        return best
    before = accuracy if best is None else best.accuracy_before
    found = BestWeights(session.epoch, accuracy, loss, before)
    if process_group.is_leader:
        header = {"best": json.dumps(asdict(found)), "settings": json.dumps(job.settings)}
        save_tensors(session.model.state_dict(), job.work_folder / "best.safetensors", header)
    return found


def read_best_record(path: Path, settings: dict[str, object]) -> BestWeights | None:
    """The metrics in the header of the best weights; None if there is no file yet."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        best, found = BestWeights(**json.loads(header["best"])), json.loads(header["settings"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"the best weights so far must be intact, got {path} which is not ({error}); "
            f"delete {path.parent} and start again"
        ) from None
    check_same_settings(found, settings, path.parent)
    return best


def load_best_weights(model: nn.Module, path: Path) -> None:
    """Load the best weights into the model."""
    model.load_state_dict(load_file(path))
