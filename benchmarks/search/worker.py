"""The fine-tunes of a contender's candidates, in processes that keep network and data."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as as_safetensors
from torch import nn

from benchmarks.scene import Scene
from benchmarks.search.rules import Rules
from paretoprune.search.storage.trial_spec import TrialSpec
from paretoprune.search.trial.context import TrialContext
from paretoprune.search.trial.execute import execute_trial
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.serialization import load_pruned_model
from paretoprune.trainers.training.loop import train_model


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of a fine-tune; the weights are bytes, so that no memory is shared."""

    flops: float
    validation: float
    epochs: float
    seconds: float
    weights: bytes = b""
    path: str = ""  # of a trial, where its weights lie


_resident: list[Any] = []


def settle(resident: bytes) -> None:
    """Begin a worker: unpack what all of its fine-tunes need."""
    torch.set_num_threads(1)
    _resident[:] = [pickle.loads(resident)]


@dataclass(frozen=True, slots=True, eq=False)
class NetworkTask:
    """A peer's network, already cut: its bytes travel, the network stays to be read out."""

    network: nn.Module
    flops: float
    rules: Rules
    seed: int

    def read(self, tuned: Tuned, resident: Scene) -> nn.Module:
        """The network with its fine-tuned weights."""
        self.network.load_state_dict(from_safetensors(tuned.weights))
        return self.network.eval()

    def run(self, scene: Scene) -> Tuned:
        """Recalibrate, fine-tune, measure: what every trial of ours does after its cut."""
        begin, data, machine = time.perf_counter(), scene.data, scene.machine
        recalibrate_batch_norm(self.network, data, machine=machine)
        log = train_model(
            self.network,
            data,
            self.rules.tuning(),
            seed=self.seed,
            teacher=scene.teacher,
            machine=machine,
        )
        score = evaluate(self.network, data.validation, data, machine=machine)
        state = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        seconds = time.perf_counter() - begin
        return Tuned(self.flops, score.accuracy, log.epochs, seconds, as_safetensors(state))


@dataclass(frozen=True, slots=True, eq=False)
class PolicyTask:
    """One trial of one policy, as a search would run it."""

    job: TrialSpec

    def read(self, tuned: Tuned, resident: TrialContext) -> nn.Module:
        """The network that the trial left on disk."""
        folder = resident.root / tuned.path
        return load_pruned_model(folder, resident.model, resident.space.channel_map)

    def run(self, context: TrialContext) -> Tuned:
        """Carry it out."""
        begin = time.perf_counter()
        found = execute_trial(self.job, context).evaluation
        seconds = time.perf_counter() - begin
        return Tuned(found.flops_fraction, found.accuracy, found.epochs, seconds, path=found.path)


class Task(Protocol):
    """A fine-tune: run in a worker, beside what that keeps; read out in the driver."""

    def run(self, resident: Any, /) -> Tuned:
        """Fine-tune and measure."""
        ...

    def read(self, tuned: Tuned, resident: Any, /) -> nn.Module:
        """The fine-tuned network."""
        ...


def tune(packed: bytes) -> Tuned:
    """Run a task beside what this worker keeps."""
    task: Task = pickle.loads(packed)
    return task.run(_resident[0])
