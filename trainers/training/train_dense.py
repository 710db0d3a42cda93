"""A dense baseline: train a network by name, resumably, and write its weights and its figures.

`OUT` is the network's safetensors, `OUT.json` beside it what was trained and how good it is. While
it runs, `OUT.checkpoint` holds the session; run the same job again and it goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.output_forms import SCORES
from ..data.image_options import ImageOptions, with_options
from ..data.sources.load import load_data
from ..data.splits import DataSplits
from ..metrics.evaluate import ClassificationMetrics, evaluate
from ..models.build import build_model, stock_notes
from ..models.read_outputs import read_outputs
from ..models.weights import load_weights
from ..runtime.device import DeviceConfig, detect_device_config
from .checkpoint import restore_session, save_session, save_weights
from .loop import TrainingLog, TrainingProgress, run_session
from .optimizer import TrainingSettings
from .session import TrainingSession

SCHEMA = 1
SAVE_SECONDS = 60.0
# From scratch: the rate and the warm-up that a fine-tune must not have.
FROM_SCRATCH_SETTINGS = TrainingSettings(epochs=30, learning_rate=0.1, warmup=0.05, distill=0.0)


@dataclass(frozen=True, slots=True)
class DenseTrainingSpec:
    """What to train, on what, and where to write it."""

    model: str
    data: str
    out: Path
    tuning: TrainingSettings = FROM_SCRATCH_SETTINGS
    seed: int = 0
    weights: Path | None = None
    machine: DeviceConfig | None = None
    save_seconds: float = SAVE_SECONDS
    images: ImageOptions = ImageOptions()
    outputs: str = SCORES  # or probabilities

    def settings(self, machine: DeviceConfig) -> dict[str, object]:
        """What decides the result, as JSON values."""
        source = None if self.weights is None else file_sha256(self.weights)
        return {
            "model": self.model,
            "data": self.data,
            "seed": self.seed,
            "weights_sha256": source,
            "tuning": asdict(self.tuning),
            "machine": asdict(machine),
            **({} if self.images == ImageOptions() else {"images": asdict(self.images)}),
            **({} if self.outputs == SCORES else {"outputs": self.outputs}),
        }


@dataclass(frozen=True, slots=True)
class DenseBaseline:
    """A trained dense network on disk; validation chooses, test reports."""

    path: Path
    sha256: str
    validation: ClassificationMetrics
    test: ClassificationMetrics | None
    seconds: float
    settings: dict[str, object] = field(default_factory=dict)


def train_dense_baseline(
    job: DenseTrainingSpec,
    *,
    data: DataSplits | None = None,
    on_report: Callable[[TrainingProgress], bool] | None = None,
    say: Callable[[str], None] | None = None,
) -> DenseBaseline:
    """Train, or go on training, and write the network; a finished job is read back.

    `say` is told where the first weights come from, and how the network's outputs are read,
    where that is not plain.
    """
    data = data or load_data(job.data)  # every command cuts the same validation split
    data = with_options(data, job.images)
    model = build_model(
        job.model, classes=data.classes, input_shape=data.input_shape, seed=job.seed
    )
    machine = job.machine or detect_device_config(model, data.input_shape)
    settings = job.settings(machine)
    checkpoint = job.out.with_name(job.out.name + ".checkpoint")
    done = None if checkpoint.exists() else read_baseline(job.out)
    if done is not None and done.settings == json.loads(json.dumps(settings)):
        return done
    notes = stock_notes(job.model) if job.weights is None else load_weights(model, job.weights)
    data, more = read_outputs(model, data, job.outputs)
    if say is not None:
        for note in (*notes, *more):
            say(note)
    session = TrainingSession(model, data, job.tuning, seed=job.seed, machine=machine)
    if checkpoint.exists():
        restore_session(session, checkpoint, settings)
    log = run_session(
        session, report_and_save(session, checkpoint, settings, job.save_seconds, on_report)
    )
    if log.ended != "finished":
        save_session(session, checkpoint, settings)
    return _write_baseline(job, session, data, log, settings)


def report_and_save(
    session: TrainingSession,
    checkpoint: Path,
    settings: dict[str, object],
    every: float,
    on_report: Callable[[TrainingProgress], bool] | None,
) -> Callable[[TrainingProgress], bool]:
    """Report, and save the session when the last save is old enough."""
    last = time.monotonic()

    def report(progress: TrainingProgress) -> bool:
        nonlocal last
        if time.monotonic() - last >= every and progress.step < progress.steps:
            save_session(session, checkpoint, settings)
            last = time.monotonic()
        return on_report is None or on_report(progress) is not False

    return report


def _write_baseline(
    job: DenseTrainingSpec,
    session: TrainingSession,
    data: DataSplits,
    log: TrainingLog,
    settings: dict[str, object],
) -> DenseBaseline:
    model, machine = session.model, session.machine
    save_weights(model, job.out)
    baseline = DenseBaseline(
        path=job.out,
        sha256=file_sha256(job.out),
        validation=evaluate(model, data.validation, data, machine=machine),
        test=None if data.test is None else evaluate(model, data.test, data, machine=machine),
        seconds=log.seconds,
        settings=settings,
    )
    _write_record(baseline)
    if log.ended == "finished":
        job.out.with_name(job.out.name + ".checkpoint").unlink(missing_ok=True)
    return baseline


def _write_record(baseline: DenseBaseline) -> None:
    record = {"schema": SCHEMA, **asdict(baseline), "path": baseline.path.name}
    write_json_atomic(baseline.path.with_name(baseline.path.name + ".json"), record)


def read_baseline(out: Path) -> DenseBaseline | None:
    """The finished baseline at `out`, if its record fits its weights."""
    file = out.with_name(out.name + ".json")
    if not (out.is_file() and file.is_file()):
        return None
    record = json.loads(file.read_text())
    if record.get("schema") != SCHEMA or record["sha256"] != file_sha256(out):
        return None
    test = None if record["test"] is None else ClassificationMetrics(**record["test"])
    return DenseBaseline(
        path=out,
        sha256=record["sha256"],
        validation=ClassificationMetrics(**record["validation"]),
        test=test,
        seconds=record["seconds"],
        settings=record["settings"],
    )


def file_sha256(path: Path) -> str:
    """The sha256 that results quote."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
