"""Train gates and weights together until the network has the target size.

`train_gates` runs a `TrainingSession` over a `GatedNetwork` with the `SizePenalty`. Every few
epochs, permanently closed gates are cut, and a smaller session continues at the same step. The
result is an ordinary pruned network (result.py). Fine-tune it, as after any other cut.
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

MIN_INITIAL_GATE = 0.2  # with scores: the task's gradient acts before the lowest gate closes
PATIENCE = 0.2  # the share of the run for which a permanently closed gate must have been closed

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
    """Train a copy of `model` with gates and cut it to the target.

    Args:
        model: The dense network; it is not changed.
        data: The splits; only train is used.
        spec: The pruning space, target and settings.
        teacher: The teacher of the distillation; None: no distillation.
        machine: Device and precision; None: the fastest here.
        checkpoint: A file that is written after every report; an existing one is resumed. The
            caller deletes it.
        on_report: Called with the progress after every epoch, every cut and the epochs in
            `tuning.reports`; False ends the run.
    """
    spec = check_gate_spec(spec)
    machine = machine or detect_device_config(model, data.input_shape)
    trainer = _GateTrainer(copy.deepcopy(model), data, spec, teacher, machine)
    if checkpoint is not None:
        trainer.resume_or_start(checkpoint)
    try:
        log = trainer.run(on_report)
    except TrainingDivergedError as error:
        saved = "" if checkpoint is None else f"; the last valid state is in {checkpoint}"
        raise TrainingDivergedError(f"{error}{saved}") from error
    return finalize_gates(trainer.network, trainer.remaining, spec, log)


def check_gate_spec(spec: GateTrainingSpec) -> GateTrainingSpec:
    """Return the spec without a redundant target; UserError if no target is given or reachable."""
    if spec.limits == (None, None):
        raise UserError("gates need a target, got none; give flops, params or both")
    atoms = spec.space.channel_map.atoms
    if spec.scores is not None and spec.scores.shape != (atoms,):
        raise UserError(
            f"scores must be one number per atom, [{atoms}], got {list(spec.scores.shape)}; "
            "compute them from this network's channel map"
        )
    return replace(spec, target=drop_redundant_part(spec.space, spec.target, spec.settings.floor))


def initial_gate_values(spec: GateTrainingSpec) -> NDArray[np.float64]:
    """The initial gate values: by the rank of the scores, or 1 without scores."""
    atoms = spec.space.channel_map.atoms
    if spec.scores is None:
        return np.ones(atoms)
    rank = np.argsort(np.argsort(spec.scores, kind="stable"), kind="stable")
    return MIN_INITIAL_GATE + (1 - MIN_INITIAL_GATE) * rank / max(1, atoms - 1)


class _GateTrainer:
    """A run of gate training: the current session, and the atoms that remain in its network."""

    def __init__(
        self,
        model: nn.Module,
        data: DataSplits,
        spec: GateTrainingSpec,
        teacher: Teacher | None,
        machine: DeviceConfig,
    ) -> None:
        self.dense, self.data, self.spec = model, data, spec
        self.teacher, self.machine = teacher, machine
        self.checkpoint: Path | None = None
        self.remaining = np.ones(spec.space.channel_map.atoms, dtype=bool)
        self.session = self._build_session(model, torch.from_numpy(initial_gate_values(spec)))
        # Cuts of single atoms would break widths in multiples, which only the solver keeps.
        epochs = None if spec.space.round_to > 1 else spec.settings.shrink_every
        self.shrink_interval = (
            None if epochs is None else max(1, round(epochs * self.session.steps_per_epoch))
        )

    @property
    def network(self) -> GatedNetwork:
        """The gated network of the current session."""
        network = self.session.model
        assert isinstance(network, GatedNetwork)
        return network

    def resume_or_start(self, checkpoint: Path) -> None:
        """Resume from a checkpoint, or write the first one."""
        self.checkpoint = checkpoint
        if not checkpoint.exists():
            self._save()
            return
        removed = read_checkpoint_settings(checkpoint).get("removed")
        if isinstance(removed, list) and removed:
            self.remaining[np.array(removed)] = False
            inner = prune_network(self.dense, self.spec.space.channel_map, self.remaining)
            self.session = self._build_session(inner, torch.ones(int(self.remaining.sum())))
        restore_session(self.session, checkpoint, self._checkpoint_settings())

    def run(self, on_report: OnReport | None) -> TrainingLog:
        """Train to the end, with reports and cuts."""
        begin, first = time.perf_counter(), self.session.step
        history: list[TrainingProgress] = []
        ended: Literal["finished", "stopped", "max_seconds"] = "finished"
        for goal in sorted({*report_steps(self.session), *self._shrink_steps()}):
            if not self.session.advance(goal, begin=begin):
                ended = "max_seconds"
            history.append(training_progress(self.session, first, time.perf_counter() - begin))
            interval = self.shrink_interval
            if interval is not None and self.session.step % interval == 0:
                self._shrink(max(interval, round(PATIENCE * self.session.total_steps)))
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
        """A session at step 0 over the network `inner`, which has the remaining atoms."""
        spec, settings = self.spec, self.spec.settings
        channel_map = reduce_channel_map(spec.space.channel_map, self.remaining)
        batches = len(self.data.train) // min(settings.tuning.batch_size, len(self.data.train))
        total = max(1, round(settings.tuning.epochs * batches))
        network = GatedNetwork(
            inner,
            channel_map,
            values,
            variant=settings.variant,
            floor=max(settings.floor, spec.space.min_channels),
            steps=total,
        ).to(self.machine.device)
        guidance = AuxiliaryLosses(
            teacher=self.teacher,
            penalty=SizePenalty(network, CostModel(channel_map), spec),
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
            seed=spec.seed,
            guidance=guidance,
            machine=self.machine,
        )

    def _shrink_steps(self) -> range:
        """The remaining steps after which permanently closed gates are cut."""
        interval = self.shrink_interval
        if interval is None:
            return range(0)
        first = self.session.step - self.session.step % interval + interval
        return range(first, self.session.total_steps, interval)

    def _shrink(self, patience: int) -> None:
        """Cut permanently closed gates, and continue with a smaller session."""
        old, network = self.session, self.network
        if self.spec.settings.ramp(old.step / old.total_steps) < 1:
            return  # the target size still falls, so the layers' widths are not balanced yet
        channel_map = reduce_channel_map(self.spec.space.channel_map, self.remaining)
        space = PruningSpace(channel_map, CostModel(channel_map), network.floor)
        keep = ~permanently_closed_gates(network, patience, space, Target(*self.spec.limits))
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
        """Everything that determines the result, and the atoms that are removed already."""
        spec = self.spec
        return {
            "gates": asdict(spec.settings),
            "target": spec.target.to_json(),
            "map": channel_map_digest(spec.space.channel_map),
            "limits": [spec.space.min_channels, spec.space.round_to],
            "start": initial_gate_values(spec).tolist(),
            "seed": spec.seed,
            "machine": asdict(self.machine),
            "removed": np.flatnonzero(~self.remaining).tolist(),
        }
