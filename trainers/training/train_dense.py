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

from ...spaces.io.atomic_write import write_json
from ...spaces.output_forms import SCORES
from ..data.image_options import ImageOptions, with_options
from ..data.sources.load import Data, load_data
from ..metrics.evaluate import Score, evaluate
from ..models.build import build_model, load_weights, stock_notes
from ..models.read_outputs import read_outputs
from ..runtime.device import Machine, detect_machine
from .checkpoint import restore_session, save_session, save_weights
from .loop import Progress, Session, TrainLog, Tuning, run

SCHEMA = 1
SAVE_SECONDS = 60.0
# From scratch: the rate and the warm-up that a fine-tune must not have.
FROM_SCRATCH = Tuning(epochs=30, learning_rate=0.1, warmup=0.05, distill=0.0)


@dataclass(frozen=True, slots=True)
class DenseJob:
    """What to train, on what, and where to write it."""

    model: str
    data: str
    out: Path
    tuning: Tuning = FROM_SCRATCH
    seed: int = 0
    weights: Path | None = None
    machine: Machine | None = None
    save_seconds: float = SAVE_SECONDS
    images: ImageOptions = ImageOptions()
    outputs: str = SCORES  # or probabilities

    def settings(self, machine: Machine) -> dict[str, object]:
        """What decides the result, as JSON values."""
        source = None if self.weights is None else file_hash(self.weights)
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
class Baseline:
    """A trained dense network on disk; validation chooses, test reports."""

    path: Path
    sha256: str
    validation: Score
    test: Score | None
    seconds: float
    settings: dict[str, object] = field(default_factory=dict)


def train_dense(
    job: DenseJob,
    *,
    data: Data | None = None,
    on_report: Callable[[Progress], bool] | None = None,
    say: Callable[[str], None] | None = None,
) -> Baseline:
    """Train, or go on training, and write the network; a finished job is read back.

    `say` is told where the first weights come from, and how the network's outputs are read,
    where that is not plain.
    """
    data = data or load_data(job.data)  # every command cuts the same validation split
    data = with_options(data, job.images)
    model = build_model(
        job.model, classes=data.classes, input_shape=data.input_shape, seed=job.seed
    )
    machine = job.machine or detect_machine(model, data.input_shape)
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
    session = Session(model, data, job.tuning, seed=job.seed, machine=machine)
    if checkpoint.exists():
        restore_session(session, checkpoint, settings)
    log = run(session, saving(session, checkpoint, settings, job.save_seconds, on_report))
    if log.ended != "finished":
        save_session(session, checkpoint, settings)
    return _conclude(job, session, data, log, settings)


def saving(
    session: Session,
    checkpoint: Path,
    settings: dict[str, object],
    every: float,
    on_report: Callable[[Progress], bool] | None,
) -> Callable[[Progress], bool]:
    """Report, and save the session when the last save is old enough."""
    last = time.monotonic()

    def report(progress: Progress) -> bool:
        nonlocal last
        if time.monotonic() - last >= every and progress.step < progress.steps:
            save_session(session, checkpoint, settings)
            last = time.monotonic()
        return on_report is None or on_report(progress) is not False

    return report


def _conclude(
    job: DenseJob, session: Session, data: Data, log: TrainLog, settings: dict[str, object]
) -> Baseline:
    model, machine = session.model, session.machine
    save_weights(model, job.out)
    baseline = Baseline(
        path=job.out,
        sha256=file_hash(job.out),
        validation=evaluate(model, data.validation, data, machine=machine),
        test=None if data.test is None else evaluate(model, data.test, data, machine=machine),
        seconds=log.seconds,
        settings=settings,
    )
    _write_record(baseline)
    if log.ended == "finished":
        job.out.with_name(job.out.name + ".checkpoint").unlink(missing_ok=True)
    return baseline


def _write_record(baseline: Baseline) -> None:
    record = {"schema": SCHEMA, **asdict(baseline), "path": baseline.path.name}
    write_json(baseline.path.with_name(baseline.path.name + ".json"), record)


def read_baseline(out: Path) -> Baseline | None:
    """The finished baseline at `out`, if its record fits its weights."""
    file = out.with_name(out.name + ".json")
    if not (out.is_file() and file.is_file()):
        return None
    record = json.loads(file.read_text())
    if record.get("schema") != SCHEMA or record["sha256"] != file_hash(out):
        return None
    test = None if record["test"] is None else Score(**record["test"])
    return Baseline(
        path=out,
        sha256=record["sha256"],
        validation=Score(**record["validation"]),
        test=test,
        seconds=record["seconds"],
        settings=record["settings"],
    )


def file_hash(path: Path) -> str:
    """The sha256 that results quote."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
