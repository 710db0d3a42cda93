"""`paretoprune train`: train a dense network from its name and data, resumably."""

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
    spec: DenseTrainingSpec, *, epochs: float, learning_rate: float | None, download: bool = False
) -> int:
    """Run `paretoprune train`: train, print the metrics, return the exit code."""
    check_training_spec(spec, epochs)
    data = with_options(load_data(spec.data, download=download), spec.images)
    for note in data.notes:
        print(note)
    print(describe_normalisation(data, spec.images))
    print(describe_augmentation(data, spec.images))
    rate = learning_rate or (
        FROM_SCRATCH_SETTINGS.learning_rate if spec.weights is None else FINE_TUNE_LEARNING_RATE
    )
    spec = replace(spec, tuning=replace(FROM_SCRATCH_SETTINGS, epochs=epochs, learning_rate=rate))
    signals = SignalHandler()
    try:
        with signals.installed(), training_progress_bar() as bar:
            baseline = train_dense_baseline(
                spec, data=data, log=print, on_report=lambda now: bar(now, "") is None
            )
    except TrainingDivergedError as error:
        spec.out.with_name(spec.out.name + ".checkpoint").unlink(missing_ok=True)
        reason = str(error).partition(";")[0]
        raise UserError(f"{reason}; start again with a lower --learning-rate") from error
    except StopRequested as stop:
        print(f"stopped; the same command continues from {spec.out}.checkpoint")
        return stop.exit_code
    print_baseline(baseline)
    return 0


def check_training_spec(spec: DenseTrainingSpec, epochs: float) -> None:
    """Raise a `UserError` if the network cannot be trained or written."""
    check_for_source(spec.images, spec.data)
    check_weights_file(spec.weights)
    check_choice("--outputs", spec.outputs, CHOICES)
    if not 0 < epochs < 1e6:
        raise UserError(
            f"--epochs must be finite and above 0, got {epochs}; 30 is usual from scratch"
        )
    if spec.out.suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, got {spec.out}; rename it")
    if spec.out.is_dir() or not spec.out.absolute().parent.is_dir():
        raise UserError(
            f"--out must be a file in a folder that exists, got {spec.out}; create the folder"
        )


@contextmanager
def training_progress_bar(
    *, quiet: bool = False
) -> Iterator[Callable[[TrainingProgress, str], None]]:
    """Show the progress of a training: a bar on a terminal, plain lines in a pipe."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"),
               TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn())  # fmt: skip
    on_terminal = sys.stdout.isatty()
    with Bar(*columns, console=Console(), disable=quiet or not on_terminal) as bar:
        task = bar.add_task("training", total=None)

        def report(progress: TrainingProgress, suffix: str = "") -> None:
            text = f"epoch {progress.epoch:g} loss {progress.loss:.4f}{suffix}"
            bar.update(task, total=progress.steps, completed=progress.step, description=text)
            if not on_terminal and not quiet:
                step = f"step {progress.step}/{progress.steps}"
                print(f"{text}, {step}, ETA {progress.remaining:.0f} s", flush=True)

        yield report


def print_baseline(baseline: DenseBaseline) -> None:
    """Print the accuracies and the path of the network."""
    test = "" if baseline.test is None else f", test {baseline.test.accuracy:.4f}"
    print(f"validation accuracy {baseline.validation.accuracy:.4f}{test}")
    print(f"written to {baseline.path}; its metrics are in {baseline.path}.json")
