"""Train gates and weights together until the network has the size that was asked for.

`train_gates` runs one `Session` over a `GatedNetwork` with the size term as its penalty. Every few
epochs what is closed for good is cut and a smaller session goes on from the same step. What comes
out in the end is an ordinary cut network (outcome.py). Fine-tune it, as after any other cut.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ....spaces.allocations.decode import PruningSpace
from ....spaces.cost.cost import CostModel
from ....spaces.cost.target import Target
from ....spaces.errors import UserError
from ....spaces.graph.channels import channel_map_digest
from ....spaces.graph.reduce import expand_mask, reduce_channel_map
from ...data.splits import DataSplits
from ...runtime.device import DeviceConfig, detect_device_config
from ...training.checkpoint import read_checkpoint_settings, restore_session, save_session
from ...training.distillation import Teacher
from ...training.loop import TrainingLog, TrainingProgress, report_steps, training_progress
from ...training.optimizer import CustomLearningRate
from ...training.session import AuxiliaryLosses, TrainingDivergedError, TrainingSession
from ..surgery import prune_network
from .feasibility import drop_redundant_part
from .network import GatedNetwork
from .result import GateTrainingResult, finalize_gates
from .settings import GateTrainingSpec
from .shrinking import permanently_closed_gates, transfer_gate_state, transfer_optimizer_state
from .size_penalty import SizePenalty

MIN_INITIAL_GATE = (
    0.2  # of gates that begin in an order: far enough from closing to be heard first
)
PATIENCE = 0.2  # the share of the run after which a closed gate may count as closed for good

OnReport = Callable[[TrainingProgress], bool]


def train_gates(
    model: nn.Module,
    data: DataSplits,
    spec: GateTrainingSpec,
    *,
    teacher: Teacher | None = None,
    machine: DeviceConfig | None = None,
    checkpoint: Path | None = None,
    on_report: OnReport | None = None,
) -> GateTrainingResult:
    """Train a copy of `model`; with a `checkpoint` a run that was broken off goes on from it.

    There is a report after every epoch, point that the tuning asks for and cut; then the
    checkpoint is written, which stays until you delete it. `on_report` returning False ends the
    run early.
    """
    spec = check_gate_spec(spec)
    machine = machine or detect_device_config(model, data.input_shape)
    course = _GateTrainer(copy.deepcopy(model), data, spec, teacher, machine)
    if checkpoint is not None:
        course.resume_or_start(checkpoint)
    try:
        log = course.run(on_report)
    except TrainingDivergedError as problem:
        kept = "" if checkpoint is None else f"; the last good state is kept in {checkpoint}"
        raise TrainingDivergedError(f"{problem}{kept}") from problem
    return finalize_gates(course.network, course.remaining, spec, log)


def check_gate_spec(spec: GateTrainingSpec) -> GateTrainingSpec:
    """The task, its target within reach; one without a target, or beyond all reach, is refused."""
    if spec.limits == (None, None):
        raise UserError("gates need a target, got none; give flops, params or both")
    atoms = spec.space.channel_map.atoms
    if spec.scores is not None and spec.scores.shape != (atoms,):
        raise UserError(
            f"scores must be one number an atom, [{atoms}], got {list(spec.scores.shape)}; "
            "compute them from this network's channel map"
        )
    return replace(spec, target=drop_redundant_part(spec.space, spec.target, spec.settings.floor))


def initial_gate_values(spec: GateTrainingSpec) -> NDArray[np.float64]:
    """Where the gates begin: by the rank of their scores, or all at 1."""
    atoms = spec.space.channel_map.atoms
    if spec.scores is None:
        return np.ones(atoms)
    rank = np.argsort(np.argsort(spec.scores, kind="stable"), kind="stable")
    return MIN_INITIAL_GATE + (1 - MIN_INITIAL_GATE) * rank / max(1, atoms - 1)


class _GateTrainer:
    """A run of gate training: the present session, and which atoms are still in its network."""

    def __init__(
        self,
        model: nn.Module,
        data: DataSplits,
        task: GateTrainingSpec,
        teacher: Teacher | None,
        machine: DeviceConfig,
    ) -> None:
        self.dense, self.data, self.task = model, data, task
        self.teacher, self.machine = teacher, machine
        self.checkpoint: Path | None = None
        self.remaining = np.ones(task.space.channel_map.atoms, dtype=bool)
        self.session = self._build_session(model, torch.from_numpy(initial_gate_values(task)))
        every = task.settings.shrink_every
        # widths in multiples are the solver's business: atoms cut one by one would break them
        whole = every is None or task.space.round_to > 1
        steps = self.session.total_steps if every is None else every * self.session.steps_per_epoch
        self.every = None if whole else max(1, round(steps))

    @property
    def network(self) -> GatedNetwork:
        """The gated network in training."""
        network = self.session.model
        assert isinstance(network, GatedNetwork)
        return network

    def resume_or_start(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, or write the first one."""
        self.checkpoint = checkpoint
        if not checkpoint.exists():
            self._save()
            return
        removed = read_checkpoint_settings(checkpoint).get("removed")
        if isinstance(removed, list) and removed:
            self.remaining[np.array(removed)] = False
            inner = prune_network(self.dense, self.task.space.channel_map, self.remaining)
            self.session = self._build_session(inner, torch.ones(int(self.remaining.sum())))
        restore_session(self.session, checkpoint, self._checkpoint_settings())

    def run(self, on_report: OnReport | None) -> TrainingLog:
        """Train to the end, from report to report and from cut to cut."""
        begin, first = time.perf_counter(), self.session.step
        history: list[TrainingProgress] = []
        ended: Literal["finished", "stopped", "max_seconds"] = "finished"
        for goal in sorted({*report_steps(self.session), *self._shrink_steps()}):
            if not self.session.advance(goal, begin=begin):
                ended = "max_seconds"
            history.append(training_progress(self.session, first, time.perf_counter() - begin))
            if self.every is not None and self.session.step % self.every == 0:
                self._shrink(max(self.every, round(PATIENCE * self.session.total_steps)))
            self._save()
            if ended == "max_seconds":
                break
            if on_report is not None and on_report(history[-1]) is False:
                ended = "finished" if goal == self.session.total_steps else "stopped"
                break
        self.session.finish()
        return TrainingLog(
            steps=self.session.step,
            epochs=self.session.epoch,
            seconds=time.perf_counter() - begin,
            reading_seconds=self.session.reading_seconds,
            images=(self.session.step - first) * self.session.batch_size,
            history=tuple(history),
            machine=self.machine,
            ended=ended,
        )

    def _build_session(self, inner: nn.Module, values: torch.Tensor) -> TrainingSession:
        """A session at step 0 over a network that has the atoms left."""
        task, settings = self.task, self.task.settings
        channel_map = reduce_channel_map(task.space.channel_map, self.remaining)
        batches = len(self.data.train) // min(settings.tuning.batch_size, len(self.data.train))
        total = max(1, round(settings.tuning.epochs * batches))
        network = GatedNetwork(
            inner,
            channel_map,
            values,
            variant=settings.variant,
            floor=max(settings.floor, task.space.min_channels),
            steps=total,
        ).to(self.machine.device)
        guidance = AuxiliaryLosses(
            teacher=self.teacher,
            penalty=SizePenalty(network, CostModel(channel_map), task),
            own_rates=(
                CustomLearningRate(
                    network.gates, lambda share: settings.gate_learning_rate_at(share) / total
                ),
            ),
        )
        return TrainingSession(
            network,
            self.data,
            settings.tuning,
            seed=task.seed,
            guidance=guidance,
            machine=self.machine,
        )

    def _shrink_steps(self) -> range:
        """The steps ahead after which there may be something to cut."""
        if self.every is None:
            return range(0)
        first = self.session.step - self.session.step % self.every + self.every
        return range(first, self.session.total_steps, self.every)

    def _shrink(self, patience: int) -> None:
        """Cut what is closed for good; a smaller session goes on."""
        old, network = self.session, self.network
        if self.task.settings.ramp(old.step / old.total_steps) < 1:
            return  # the aim still falls, and the balance of layers is not found yet
        channel_map = reduce_channel_map(self.task.space.channel_map, self.remaining)
        space = PruningSpace(channel_map, CostModel(channel_map), network.floor)
        keep = ~permanently_closed_gates(network, patience, space, Target(*self.task.limits))
        if keep.all():
            return
        self.remaining = expand_mask(self.remaining, keep)
        inner = prune_network(network.model, channel_map, keep)
        self.session = self._build_session(inner, torch.ones(int(keep.sum())))
        transfer_gate_state(network, self.network, keep)
        transfer_optimizer_state(old, self.session, channel_map, keep)
        self.session.seek(old.step)
        self.session.reading_seconds = old.reading_seconds

    def _save(self) -> None:
        if self.checkpoint is not None:
            save_session(self.session, self.checkpoint, self._checkpoint_settings())

    def _checkpoint_settings(self) -> dict[str, object]:
        """What decides the result, and which atoms are gone already."""
        task = self.task
        return {
            "gates": asdict(task.settings),
            "target": task.target.to_json(),
            "map": channel_map_digest(task.space.channel_map),
            "limits": [task.space.min_channels, task.space.round_to],
            "start": initial_gate_values(task).tolist(),
            "seed": task.seed,
            "machine": asdict(self.machine),
            "removed": np.flatnonzero(~self.remaining).tolist(),
        }
