"""The dense network of a search: built, trained if nobody did, judged on validation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import load as from_safetensors
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

from ..analysis.pieces import single
from ..spaces.durable import write_bytes
from ..spaces.errors import UserError
from ..spaces.front import Dense
from ..trainers.baseline import SAVE_SECONDS, saving
from ..trainers.checkpoint import restore_session
from ..trainers.evaluate import evaluate
from ..trainers.loop import Diverged, Progress, Session, Tuning
from ..trainers.loop import run as run_session
from ..trainers.machine import Machine, detect_machine
from ..trainers.models import build_model, load_weights, stock_notes
from ..trainers.split import Data
from .context import Context
from .crew import Hands
from .effort import dense_epochs
from .run_folder import RunFolder
from .settings import SearchSettings
from .telling import Say


@dataclass(frozen=True, slots=True, eq=False)
class Untrained:
    """A network as it was built, and what it is to be trained on."""

    model: nn.Module
    data: Data
    settings: SearchSettings


def build(settings: SearchSettings, data: Data, say: Say | None = None) -> nn.Module:
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


def machine_of(on: Untrained, say: Say) -> Machine:
    """The best settings here for this network; on the CPU if trials are to have no GPU."""
    machine = detect_machine(on.model, tuple(on.data.input_shape))
    if on.settings.gpus_per_trial == 0 and machine.device != "cpu":
        return Machine(device="cpu")
    return machine


def dense_weights(
    on: Untrained, run: RunFolder, machine: Machine, hands: Hands, *, trained: bool
) -> None:
    """Give the model its weights, which the run keeps: those of before, its own, or trained."""
    if not run.dense.exists():
        if trained:
            weights = as_safetensors(state_of(on.model))
        else:
            checkpoint = run.dense_checkpoint.resolve()
            (weights,) = hands.do([single(partial(train_dense, machine, checkpoint))], on)
        write_bytes(run.dense, weights)
        run.dense_checkpoint.unlink(missing_ok=True)
    on.model.load_state_dict(from_safetensors(run.dense.read_bytes()))
    on.model.eval()


def train_dense(machine: Machine, checkpoint: Path, on: Untrained, say: Say) -> bytes:
    """Its weights after the dense training, as safetensors.

    Where the run folder is seen, a training that was broken off goes on from its checkpoint.
    """
    epochs = dense_epochs(on.settings, on.data)
    say(f"training the dense network for {epochs:g} epochs; --weights FILE would skip this")
    tuning = Tuning(epochs=epochs, learning_rate=0.1, warmup=0.1, batch_size=64)

    def each_epoch(progress: Progress) -> bool:
        if progress.epoch % math.ceil(epochs / 8) == 0 or progress.epoch == epochs:
            say(f"  epoch {progress.epoch:g}/{epochs:g}, loss {progress.loss:.4f}")
        return True

    seed = on.settings.seed
    session = Session(on.model, on.data, tuning, seed=seed, machine=machine)
    asked = {"seed": seed, "tuning": asdict(tuning), "machine": asdict(machine)}
    if checkpoint.exists():
        restore_session(session, checkpoint, asked)
        say(f"  going on after epoch {session.epoch:g}")
    seen = checkpoint.parent.is_dir()
    save = partial(saving, session, checkpoint, asked, SAVE_SECONDS)
    try:
        run_session(session, save(each_epoch) if seen else each_epoch)
    except Diverged as error:
        said = str(error).partition(";")[0]
        raise UserError(
            f"{said}; train it with paretoprune train --learning-rate 0.01 and pass its --weights"
        ) from error
    return as_safetensors(state_of(on.model))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Its tensors, each for itself, on the CPU."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}


def measure_dense(context: Context, hands: Hands, say: Say) -> Dense:
    """The dense network's own figures, without the test split."""
    (accuracy,) = hands.do([single(accuracy_of)], context)
    channel_map, (macs, params) = context.space.channel_map, context.space.price.dense
    say(
        f"dense network: validation accuracy {accuracy:.4f}, {macs:,} MACs, {params:,} params, "
        f"{channel_map.atoms} atoms in {len(channel_map.groups)} groups"
    )
    return Dense(accuracy, macs, params)


def accuracy_of(context: Context, say: Say) -> float:
    """Of the dense network, on validation."""
    data = context.data
    found = evaluate(context.model, data.validation, data, machine=context.machine).accuracy
    context.model.cpu()
    return found
