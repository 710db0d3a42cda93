"""Train a dense network by name, resumably, and write its weights and metrics.

`OUT` is the safetensors file, `OUT.json` its settings and metrics. During the training,
`OUT.checkpoint` holds the session; the same call resumes it.
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
# A fine-tune needs a lower learning rate than training from scratch.
FROM_SCRATCH_SETTINGS = TrainingSettings(epochs=30, learning_rate=0.1, warmup=0.05, distill=0.0)


@dataclass(frozen=True, slots=True)
class DenseTrainingSpec:
    """A network to train, its data and the output file."""

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
        """Everything that determines the result, as JSON values."""
        weights_sha256 = None if self.weights is None else file_sha256(self.weights)
        return {
            "model": self.model,
            "data": self.data,
            "seed": self.seed,
            "weights_sha256": weights_sha256,
            "tuning": asdict(self.tuning),
            "machine": asdict(machine),
            **({} if self.images == ImageOptions() else {"images": asdict(self.images)}),
            **({} if self.outputs == SCORES else {"outputs": self.outputs}),
        }


@dataclass(frozen=True, slots=True)
class DenseBaseline:
    """A trained dense network on disk and its metrics."""

    path: Path
    sha256: str
    validation: ClassificationMetrics
    test: ClassificationMetrics | None
    seconds: float
    settings: dict[str, object] = field(default_factory=dict)


def train_dense_baseline(
    spec: DenseTrainingSpec,
    *,
    data: DataSplits | None = None,
    on_report: Callable[[TrainingProgress], bool] | None = None,
    log: Callable[[str], None] | None = None,
) -> DenseBaseline:
    """Start or resume a training and write the network; a finished one is read from disk.

    Args:
        spec: What to train.
        data: The data, if they are loaded already.
        on_report: Called with the progress at every report; False ends the run.
        log: Called with notes about the initial weights and the network's outputs.
    """
    data = data or load_data(spec.data)  # every command splits off the same validation rows
    data = with_options(data, spec.images)
    model = build_model(
        spec.model, classes=data.classes, input_shape=data.input_shape, seed=spec.seed
    )
    machine = spec.machine or detect_device_config(model, data.input_shape)
    settings = spec.settings(machine)
    checkpoint = spec.out.with_name(spec.out.name + ".checkpoint")
    finished = None if checkpoint.exists() else read_baseline(spec.out)
    if finished is not None and finished.settings == json.loads(json.dumps(settings)):
        return finished
    notes = stock_notes(spec.model) if spec.weights is None else load_weights(model, spec.weights)
    data, output_notes = read_outputs(model, data, spec.outputs)
    if log is not None:
        for note in (*notes, *output_notes):
            log(note)
    session = TrainingSession(model, data, spec.tuning, seed=spec.seed, machine=machine)
    if checkpoint.exists():
        restore_session(session, checkpoint, settings)
    training_log = run_session(
        session, report_and_save(session, checkpoint, settings, spec.save_seconds, on_report)
    )
    if training_log.ended != "finished":
        save_session(session, checkpoint, settings)
    return _write_baseline(spec, session, data, training_log, settings)


def report_and_save(
    session: TrainingSession,
    checkpoint: Path,
    settings: dict[str, object],
    save_seconds: float,
    on_report: Callable[[TrainingProgress], bool] | None,
) -> Callable[[TrainingProgress], bool]:
    """A report callback that also saves the session every `save_seconds`."""
    saved_at = time.monotonic()

    def report(progress: TrainingProgress) -> bool:
        nonlocal saved_at
        if time.monotonic() - saved_at >= save_seconds and progress.step < progress.steps:
            save_session(session, checkpoint, settings)
            saved_at = time.monotonic()
        return on_report is None or on_report(progress) is not False

    return report


def _write_baseline(
    spec: DenseTrainingSpec,
    session: TrainingSession,
    data: DataSplits,
    log: TrainingLog,
    settings: dict[str, object],
) -> DenseBaseline:
    model, machine = session.model, session.machine
    save_weights(model, spec.out)
    baseline = DenseBaseline(
        path=spec.out,
        sha256=file_sha256(spec.out),
        validation=evaluate(model, data.validation, data, machine=machine),
        test=None if data.test is None else evaluate(model, data.test, data, machine=machine),
        seconds=log.seconds,
        settings=settings,
    )
    _write_record(baseline)
    if log.ended == "finished":
        spec.out.with_name(spec.out.name + ".checkpoint").unlink(missing_ok=True)
    return baseline


def _write_record(baseline: DenseBaseline) -> None:
    record = {"schema": SCHEMA, **asdict(baseline), "path": baseline.path.name}
    write_json_atomic(baseline.path.with_name(baseline.path.name + ".json"), record)


def read_baseline(out: Path) -> DenseBaseline | None:
    """The finished baseline at `out`; None if there is none or its record names other weights."""
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
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
