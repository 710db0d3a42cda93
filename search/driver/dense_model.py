"""The dense network of a search: built, trained if nobody did, judged on validation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import load as from_safetensors
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

from ...analysis.jobs import single_call_job
from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_bytes_atomic
from ...spaces.io.bounded_read import read_json
from ...spaces.records.pareto_front import DenseMetrics
from ...trainers.data.types import DataSplits
from ...trainers.metrics.evaluate import evaluate
from ...trainers.models.build import build_model, load_weights, stock_notes
from ...trainers.runtime.device import DeviceConfig, detect_device_config
from ...trainers.training.checkpoint import restore_session
from ...trainers.training.loop import (
    TrainingDivergedError,
    TrainingProgress,
    TrainingSession,
    TrainingSettings,
)
from ...trainers.training.loop import run_session as run_session
from ...trainers.training.time_limit import within
from ...trainers.training.train_dense import SAVE_SECONDS, report_and_save
from ..config.settings import SearchSettings
from ..execution.executor import Executor
from ..execution.messages import LogFunction
from ..storage.run_folder import RunFolder, update_config
from ..trial.budget import dense_epochs
from ..trial.context import TrialContext
from .deadline import DENSE

DENSE_TRAINING = "dense_training"  # in config.json


@dataclass(frozen=True, slots=True, eq=False)
class DenseModelInputs:
    """A network as it was built, and what it is to be trained on."""

    model: nn.Module
    data: DataSplits
    settings: SearchSettings


@dataclass(frozen=True, slots=True)
class DenseTraining:
    """How long a dense network was trained, what was planned, and within which limit."""

    epochs: float
    planned: float
    max_minutes: float | None

    @property
    def shortened(self) -> bool:
        """Whether it is less than was planned."""
        return self.epochs < self.planned

    def serves(self, max_minutes: float | None) -> bool:
        """Whether a run with this limit would have trained the same network."""
        return self.max_minutes == max_minutes or (max_minutes is None and not self.shortened)

    def line(self) -> str:
        """What is said of one that was shortened."""
        few = "" if self.epochs >= 1 else "; give it more minutes, or --weights FILE"
        return (
            f"dense training shortened to {self.epochs:.3g} of {self.planned:g} epochs to fit "
            f"--max-minutes {self.max_minutes:.3g}{few}"
        )


def training_of(run: RunFolder) -> DenseTraining | None:
    """How the dense network of a run was trained; runs of older versions do not say."""
    values = read_json(run.config).get(DENSE_TRAINING)
    return None if values is None else DenseTraining(**values)


def build_from_settings(
    settings: SearchSettings, data: DataSplits, say: LogFunction | None = None
) -> nn.Module:
    """The network that the settings name, with `--weights` if they are given.

    `say` is told where its weights come from.
    """
    model = build_model(
        settings.model, classes=data.classes, input_shape=data.input_shape, seed=settings.seed
    )
    given = settings.weights
    notes = stock_notes(settings.model) if given is None else load_weights(model, given)
    if say is not None:
        for note in notes:
            say(note)
    return model


def choose_device_config(dense_inputs: DenseModelInputs, log: LogFunction) -> DeviceConfig:
    """The best settings here for this network; on the CPU if trials are to have no GPU."""
    machine = detect_device_config(dense_inputs.model, tuple(dense_inputs.data.input_shape))
    if dense_inputs.settings.gpus_per_trial == 0 and machine.device != "cpu":
        return DeviceConfig(device="cpu")
    return machine


def load_or_train_weights(
    dense_inputs: DenseModelInputs,
    run: RunFolder,
    device_config: DeviceConfig,
    executor: Executor,
    *,
    trained: bool,
) -> None:
    """Give the model its weights, which the run keeps: those of before, its own, or trained."""
    if not run.dense.exists():
        if trained:
            weights = as_safetensors(cpu_state_dict(dense_inputs.model))
        else:
            checkpoint = run.dense_checkpoint.resolve()
            errand = single_call_job(partial(train_dense_weights, device_config, checkpoint))
            ((weights, training),) = executor.run([errand], dense_inputs)
            update_config(run, **{DENSE_TRAINING: asdict(training)})
        write_bytes_atomic(run.dense, weights)
        run.dense_checkpoint.unlink(missing_ok=True)
    dense_inputs.model.load_state_dict(from_safetensors(run.dense.read_bytes()))
    dense_inputs.model.eval()


def train_dense_weights(
    device_config: DeviceConfig, checkpoint: Path, dense_inputs: DenseModelInputs, log: LogFunction
) -> tuple[bytes, DenseTraining]:
    """Its weights after the dense training, as safetensors, and how long that was.

    Where the run folder is seen, a training that was broken off goes on from its checkpoint.
    With --max-minutes, the schedule is shortened to fit into a share of them.
    """
    epochs, minutes = (
        dense_epochs(dense_inputs.settings, dense_inputs.data),
        dense_inputs.settings.max_minutes,
    )
    seconds = None if minutes is None else 60 * DENSE * minutes
    most = "" if seconds is None else f", or {seconds:.3g} s ({DENSE:.0%} of --max-minutes)"
    log(f"training the dense network for {epochs:g} epochs{most}; --weights FILE would skip this")
    tuning = TrainingSettings(epochs=epochs, learning_rate=0.1, warmup=0.1, batch_size=64)

    def each_epoch(progress: TrainingProgress) -> bool:
        planned = progress.steps / session.steps_per_epoch if seconds else epochs
        over = progress.step == progress.steps if seconds else progress.epoch == epochs
        if progress.epoch % math.ceil(planned / 8) == 0 or over:
            place = f"{round(progress.epoch, 2):g}/{round(planned, 2):g}"
            log(f"  epoch {place}, loss {progress.loss:.4f}")
        return True

    seed = dense_inputs.settings.seed
    session = TrainingSession(
        dense_inputs.model, dense_inputs.data, tuning, seed=seed, machine=device_config
    )
    asked = {"seed": seed, "tuning": asdict(tuning), "machine": asdict(device_config)}
    if checkpoint.exists():
        restore_session(session, checkpoint, asked)
        log(f"  going on after epoch {session.epoch:g}")
    seen = checkpoint.parent.is_dir()
    save = partial(report_and_save, session, checkpoint, asked, SAVE_SECONDS)
    report = save(each_epoch) if seen else each_epoch
    try:
        run_session(session, report if seconds is None else within(session, seconds, report))
    except TrainingDivergedError as error:
        said = str(error).partition(";")[0]
        raise UserError(
            f"{said}; train it with paretoprune train --learning-rate 0.01 and pass its --weights"
        ) from error
    shortened = session.step < round(epochs * session.steps_per_epoch)
    training = DenseTraining(session.epoch if shortened else epochs, epochs, minutes)
    if shortened:
        log(training.line())
    return as_safetensors(cpu_state_dict(dense_inputs.model)), training


def cpu_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Its tensors, each for itself, on the CPU."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}


def measure_dense_metrics(
    context: TrialContext, executor: Executor, log: LogFunction
) -> DenseMetrics:
    """The dense network's own figures, without the test split."""
    (accuracy,) = executor.run([single_call_job(validation_accuracy)], context)
    channel_map, (macs, params) = context.space.channel_map, context.space.cost_model.dense
    log(
        f"dense network: validation accuracy {accuracy:.4f}, {macs:,} MACs, {params:,} params, "
        f"{channel_map.atoms} atoms in {len(channel_map.groups)} groups"
    )
    return DenseMetrics(accuracy, macs, params)


def validation_accuracy(context: TrialContext, log: LogFunction) -> float:
    """Of the dense network, on validation."""
    data = context.data
    found = evaluate(context.model, data.validation, data, machine=context.machine).accuracy
    context.model.cpu()
    return found
