"""The dense model of a search: build it, train it unless weights are given, evaluate it."""

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
from ...trainers.data.splits import DataSplits
from ...trainers.metrics.evaluate import evaluate
from ...trainers.models.build import build_model, stock_notes
from ...trainers.models.weights import load_weights
from ...trainers.runtime.device import DeviceConfig, detect_device_config
from ...trainers.training.checkpoint import restore_session
from ...trainers.training.loop import TrainingProgress, run_session
from ...trainers.training.optimizer import TrainingSettings
from ...trainers.training.session import TrainingDivergedError, TrainingSession
from ...trainers.training.time_limit import within
from ...trainers.training.train_dense import SAVE_SECONDS, report_and_save
from ..config.settings import SearchSettings
from ..execution.executor import Executor
from ..execution.progress_messages import LogFunction
from ..storage.run_folder import RunFolder, update_config
from ..trial.budget import epochs_covering
from ..trial.context import TrialContext
from .deadline import DENSE

DENSE_TRAINING = "dense_training"  # field of config.json
# Few epochs of small data are too short to learn from: epochs or images, whichever is more.
MIN_DENSE_EPOCHS, MIN_DENSE_IMAGES = 30.0, 32_768


@dataclass(frozen=True, slots=True, eq=False)
class DenseModelInputs:
    """A model as it was built, its data and the settings."""

    model: nn.Module
    data: DataSplits
    settings: SearchSettings


@dataclass(frozen=True, slots=True)
class DenseTraining:
    """How many epochs a dense model was trained, how many were planned, and the time limit."""

    epochs: float
    planned: float
    max_minutes: float | None

    @property
    def shortened(self) -> bool:
        """Whether fewer epochs were trained than planned."""
        return self.epochs < self.planned

    def serves(self, max_minutes: float | None) -> bool:
        """Return whether a run with this limit would have trained the same model."""
        return self.max_minutes == max_minutes or (max_minutes is None and not self.shortened)

    def line(self) -> str:
        """Return the message about a training that was shortened."""
        hint = "" if self.epochs >= 1 else "; give it more minutes, or --weights FILE"
        return (
            f"dense training shortened to {self.epochs:.3g} of {self.planned:g} epochs to fit "
            f"--max-minutes {self.max_minutes:.3g}{hint}"
        )


def training_of(run: RunFolder) -> DenseTraining | None:
    """Read how the dense model of a run was trained; None for runs of older versions."""
    values = read_json(run.config).get(DENSE_TRAINING)
    return None if values is None else DenseTraining(**values)


def build_from_settings(
    settings: SearchSettings, data: DataSplits, log: LogFunction | None = None
) -> nn.Module:
    """Build the model that the settings name and load --weights; log where weights come from."""
    model = build_model(
        settings.model, classes=data.classes, input_shape=data.input_shape, seed=settings.seed
    )
    weights = settings.weights
    notes = stock_notes(settings.model) if weights is None else load_weights(model, weights)
    if log is not None:
        for note in notes:
            log(note)
    return model


def choose_device_config(dense_inputs: DenseModelInputs, log: LogFunction) -> DeviceConfig:
    """Detect the fastest device configuration for the model; the CPU if trials have no GPU."""
    detected = detect_device_config(dense_inputs.model, tuple(dense_inputs.data.input_shape))
    if dense_inputs.settings.gpus_per_trial == 0 and detected.device != "cpu":
        return DeviceConfig(device="cpu")
    return detected


def load_or_train_weights(
    dense_inputs: DenseModelInputs,
    run: RunFolder,
    device_config: DeviceConfig,
    executor: Executor,
    *,
    trained: bool,
) -> None:
    """Load the weights of the run folder into the model; first store or train them if missing."""
    if not run.dense.exists():
        if trained:
            weights = as_safetensors(cpu_state_dict(dense_inputs.model))
        else:
            checkpoint = run.dense_checkpoint.resolve()
            job = single_call_job(partial(train_dense_weights, device_config, checkpoint))
            ((weights, training),) = executor.run([job], dense_inputs)
            update_config(run, **{DENSE_TRAINING: asdict(training)})
        write_bytes_atomic(run.dense, weights)
        run.dense_checkpoint.unlink(missing_ok=True)
    dense_inputs.model.load_state_dict(from_safetensors(run.dense.read_bytes()))
    dense_inputs.model.eval()


def train_dense_weights(
    device_config: DeviceConfig, checkpoint: Path, dense_inputs: DenseModelInputs, log: LogFunction
) -> tuple[bytes, DenseTraining]:
    """Train the dense model; return its weights as safetensors and how long it was trained.

    If the run folder is visible, an interrupted training continues from its checkpoint.
    With --max-minutes, the schedule is shortened to fit into a share of them.
    """
    settings, seed = dense_inputs.settings, dense_inputs.settings.seed
    epochs, minutes = dense_epochs(settings, dense_inputs.data), settings.max_minutes
    seconds = None if minutes is None else 60 * DENSE * minutes
    limit = "" if seconds is None else f", or {seconds:.3g} s ({DENSE:.0%} of --max-minutes)"
    log(f"training the dense network for {epochs:g} epochs{limit}; --weights FILE would skip this")
    training_settings = TrainingSettings(
        epochs=epochs, learning_rate=0.1, warmup=0.1, batch_size=64
    )

    def on_epoch(progress: TrainingProgress) -> bool:
        planned = progress.steps / session.steps_per_epoch if seconds else epochs
        is_last = progress.step == progress.steps if seconds else progress.epoch == epochs
        if progress.epoch % math.ceil(planned / 8) == 0 or is_last:
            position = f"{round(progress.epoch, 2):g}/{round(planned, 2):g}"
            log(f"  epoch {position}, loss {progress.loss:.4f}")
        return True

    session = TrainingSession(
        dense_inputs.model,
        dense_inputs.data,
        training_settings,
        seed=seed,
        machine=device_config,
    )
    identity = {
        "seed": seed,
        "tuning": asdict(training_settings),
        "machine": asdict(device_config),
    }
    if checkpoint.exists():
        restore_session(session, checkpoint, identity)
        log(f"  continuing after epoch {session.epoch:g}")
    is_folder_visible = checkpoint.parent.is_dir()
    save = partial(report_and_save, session, checkpoint, identity, SAVE_SECONDS)
    report = save(on_epoch) if is_folder_visible else on_epoch
    try:
        run_session(session, report if seconds is None else within(session, seconds, report))
    except TrainingDivergedError as error:
        what = str(error).partition(";")[0]
        raise UserError(
            f"{what}; train it with paretoprune train --learning-rate 0.01 and pass its --weights"
        ) from error
    shortened = session.step < round(epochs * session.steps_per_epoch)
    training = DenseTraining(session.epoch if shortened else epochs, epochs, minutes)
    if shortened:
        log(training.line())
    return as_safetensors(cpu_state_dict(dense_inputs.model)), training


def dense_epochs(settings: SearchSettings, data: DataSplits) -> float:
    """Return the epochs of dense training: as set, or enough for a small data set."""
    return settings.dense_epochs or epochs_covering(data, MIN_DENSE_EPOCHS, MIN_DENSE_IMAGES)


def cpu_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict as separate tensors on the CPU."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}


def measure_dense_metrics(
    context: TrialContext, executor: Executor, log: LogFunction
) -> DenseMetrics:
    """Evaluate the dense model on validation, and log its accuracy and cost."""
    (accuracy,) = executor.run([single_call_job(validation_accuracy)], context)
    channel_map, (macs, params) = context.space.channel_map, context.space.cost_model.dense
    log(
        f"dense network: validation accuracy {accuracy:.4f}, {macs:,} MACs, {params:,} params, "
        f"{channel_map.atoms} atoms in {len(channel_map.groups)} groups"
    )
    return DenseMetrics(accuracy, macs, params)


def validation_accuracy(context: TrialContext, log: LogFunction) -> float:
    """Return the validation accuracy of the dense model."""
    data = context.data
    accuracy = evaluate(context.model, data.validation, data, machine=context.machine).accuracy
    context.model.cpu()
    return accuracy
