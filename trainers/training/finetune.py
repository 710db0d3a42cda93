"""The full fine-tune of one network: the best on validation is kept, a kill costs little.

`best.safetensors` in the work folder holds the best weights so far and how good they are,
`checkpoint.safetensors` the session. A run that is taken up judges again the epochs since its
checkpoint, with the same outcome, so the two files need not be of the same moment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
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
IMAGES_PER_REPORT = 16_384  # an epoch of more images reports, and may be saved, within
OnFineTuneReport = Callable[[TrainingProgress, "BestWeights"], None]


@dataclass(frozen=True, slots=True)
class BestWeights:
    """The best weights so far: after which epoch, their figures, and those before the first."""

    epoch: float
    accuracy: float
    loss: float
    accuracy_before: float


@dataclass(frozen=True, slots=True, eq=False)
class FineTuneJob:
    """What to fine-tune, on what, how; `settings` decide the result and are compared on resume."""

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
    job: FineTuneJob, team: ProcessGroup, on_report: OnFineTuneReport
) -> tuple[BestWeights, ClassificationMetrics | None]:
    """Train, or go on training; the model ends with its best weights.

    The leader reads the test split, once, with them.
    """
    session, own = build_session(job, team)
    checkpoint, best_file = (
        job.work_folder / "checkpoint.safetensors",
        job.work_folder / "best.safetensors",
    )
    if checkpoint.exists():
        restore_session(session, checkpoint, job.settings)
    session.forward = wrap_ddp(session.model, team)
    best = read_best_record(best_file, job.settings) or evaluate_and_keep_best(
        job, session, own, team, None
    )
    saved = time.monotonic()

    def report(progress: TrainingProgress) -> bool:
        nonlocal best, saved
        if progress.step % session.steps_per_epoch == 0 or progress.step == progress.steps:
            best = evaluate_and_keep_best(job, session, own, team, best)
        if team.is_leader and time.monotonic() - saved >= job.save_seconds:
            save_session(session, checkpoint, job.settings)
            saved = time.monotonic()
        on_report(progress, best)
        return True

    run_session(session, report)
    if not team.is_leader:
        return best, None
    load_best_weights(job.model, best_file)
    if job.data.test is None:
        return best, None
    return best, evaluate(job.model, job.data.test, job.data, machine=job.machine)


def build_session(job: FineTuneJob, team: ProcessGroup) -> tuple[TrainingSession, DataSplits]:
    """The session of this process, and the data with its share of the rows."""
    data = replace(
        job.data,
        train=shard_split(job.data.train, team, equal=True),
        validation=shard_split(job.data.validation, team, equal=False),
    )
    batch_size = max(1, job.tuning.batch_size // team.size)
    parts = -(-len(job.data.train) // IMAGES_PER_REPORT)
    within = [n / parts for n in range(1, int(job.tuning.epochs * parts)) if n % parts]
    tuning = replace(job.tuning, batch_size=batch_size, reports=tuple(within))
    seed = job.seed if team.is_leader else mix_seeds(job.seed, team.rank)
    guidance = AuxiliaryLosses(teacher=job.teacher)
    session = TrainingSession(
        job.model, data, tuning, seed=seed, guidance=guidance, machine=job.machine
    )
    return session, data


def evaluate_and_keep_best(
    job: FineTuneJob,
    session: TrainingSession,
    own: DataSplits,
    team: ProcessGroup,
    best: BestWeights | None,
) -> BestWeights:
    """Measure on validation, all together; the leader writes weights that are the best so far."""
    broadcast_buffers(session.model, team)
    score = evaluate(session.model, own.validation, own, machine=job.machine)
    parts = (score.accuracy * score.images, score.loss * score.images, score.images)
    hits, loss, images = all_reduce_sum(parts, team, job.machine.device)
    accuracy, loss = round(hits) / images, loss / images
    if best is not None and (accuracy, -loss) <= (best.accuracy, -best.loss):
        return best
    before = accuracy if best is None else best.accuracy_before
    found = BestWeights(session.epoch, accuracy, loss, before)
    if team.is_leader:
        header = {"best": json.dumps(asdict(found)), "settings": json.dumps(job.settings)}
        save_tensors(session.model.state_dict(), job.work_folder / "best.safetensors", header)
    return found


def read_best_record(path: Path, settings: dict[str, object]) -> BestWeights | None:
    """What the file of the best weights says of them; None before the first."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        best, found = BestWeights(**json.loads(header["best"])), json.loads(header["settings"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"the best weights so far must be whole, got {path} which is not ({error}); "
            f"delete {path.parent} and begin anew"
        ) from None
    check_same_settings(found, settings, path.parent)
    return best


def load_best_weights(model: nn.Module, path: Path) -> None:
    """Put the best weights into the model."""
    with safe_open(path, "pt") as file:
        model.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
