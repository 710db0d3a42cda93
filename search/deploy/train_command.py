"""`paretoprune train`: a dense baseline by name, resumable, with a progress bar and its ETA."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ...spaces.errors import UserError
from ...spaces.output_forms import CHOICES
from ...spaces.policy.policy import check_choice
from ...trainers.data.image_options import (
    check_for_source,
    describe_augmentation,
    describe_normalisation,
    with_options,
)
from ...trainers.data.sources.load import load_data
from ...trainers.training.loop import TrainingProgress
from ...trainers.training.session import TrainingDivergedError
from ...trainers.training.train_dense import (
    FROM_SCRATCH_SETTINGS,
    DenseBaseline,
    DenseTrainingSpec,
    train_dense_baseline,
)
from ..driver.prepare import check_weights_file
from ..execution.signals import SignalHandler, StopRequested

FINE_TUNE_LEARNING_RATE = 0.02


def train_command(
    job: DenseTrainingSpec, *, epochs: float, learning_rate: float | None, download: bool = False
) -> int:
    """Train, show the figures, and return the exit code."""
    check_training_spec(job, epochs)
    data = with_options(load_data(job.data, download=download), job.images)
    for note in data.notes:
        print(note)
    print(describe_normalisation(data, job.images))
    print(describe_augmentation(data, job.images))
    rate = learning_rate or (
        FROM_SCRATCH_SETTINGS.learning_rate if job.weights is None else FINE_TUNE_LEARNING_RATE
    )
    job = replace(job, tuning=replace(FROM_SCRATCH_SETTINGS, epochs=epochs, learning_rate=rate))
    stopping = SignalHandler()
    try:
        with stopping.installed(), training_progress_bar() as bar:
            baseline = train_dense_baseline(
                job, data=data, log=print, on_report=lambda now: bar(now, "") is None
            )
    except TrainingDivergedError as error:
        job.out.with_name(job.out.name + ".checkpoint").unlink(missing_ok=True)
        said = str(error).partition(";")[0]
        raise UserError(f"{said}; begin again with a lower --learning-rate") from error
    except StopRequested as stop:
        print(f"stopped; the same command goes on from {job.out}.checkpoint")
        return stop.exit_code
    print_baseline(baseline)
    return 0


def check_training_spec(job: DenseTrainingSpec, epochs: float) -> None:
    """Refuse what could not be written or trained."""
    check_for_source(job.images, job.data)
    check_weights_file(job.weights)
    check_choice("--outputs", job.outputs, CHOICES)
    if not 0 < epochs < 1e6:
        raise UserError(
            f"--epochs must be finite and above 0, got {epochs}; 30 is usual from scratch"
        )
    if job.out.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, got {job.out}; rename it")
    if job.out.is_dir() or not job.out.absolute().parent.is_dir():
        raise UserError(f"--out must be a file in a folder that exists, got {job.out}; make it")


@contextmanager
def training_progress_bar(
    *, quiet: bool = False
) -> Iterator[Callable[[TrainingProgress, str], None]]:
    """Show a training's progress: a bar on a terminal, plain lines in a pipe."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"),
               TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn())  # fmt: skip
    on_terminal = sys.stdout.isatty()
    with Bar(*columns, console=Console(), disable=quiet or not on_terminal) as bar:
        task = bar.add_task("training", total=None)

        def report(progress: TrainingProgress, more: str = "") -> None:
            text = f"epoch {progress.epoch:g} loss {progress.loss:.4f}{more}"
            bar.update(task, total=progress.steps, completed=progress.step, description=text)
            if not on_terminal and not quiet:
                place = f"step {progress.step}/{progress.steps}"
                print(f"{text}, {place}, ETA {progress.remaining:.0f} s", flush=True)

        yield report


def print_baseline(baseline: DenseBaseline) -> None:
    """The figures and where the network is."""
    test = "" if baseline.test is None else f", test {baseline.test.accuracy:.4f}"
    print(f"validation accuracy {baseline.validation.accuracy:.4f}{test}")
    print(f"written to {baseline.path}; its figures are in {baseline.path}.json")
