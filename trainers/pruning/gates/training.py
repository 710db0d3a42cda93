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

from ....spaces.allocations.decode import Space
from ....spaces.cost.cost import Price
from ....spaces.cost.target import Target
from ....spaces.errors import UserError
from ....spaces.graph.channels import map_digest
from ....spaces.graph.reduce import expand_mask, reduce_map
from ...data.types import Data
from ...runtime.device import Machine, detect_machine
from ...training.checkpoint import read_settings, restore_session, save_session
from ...training.distillation import Teacher
from ...training.loop import Progress, TrainLog, progress_of, report_steps
from ...training.optimizer import OwnRate
from ...training.session import Diverged, Guidance, Session
from ..surgery import cut
from .feasibility import within_reach
from .network import GatedNetwork
from .result import Gated, conclude
from .settings import GateTask
from .shrinking import carry_gates, carry_momentum, closed_for_good
from .size_penalty import SizeTerm

LOWEST_START = 0.2  # of gates that begin in an order: far enough from closing to be heard first
PATIENCE = 0.2  # the share of the run after which a closed gate may count as closed for good

Report = Callable[[Progress], bool]


def train_gates(
    model: nn.Module,
    data: Data,
    task: GateTask,
    *,
    teacher: Teacher | None = None,
    machine: Machine | None = None,
    checkpoint: Path | None = None,
    on_report: Report | None = None,
) -> Gated:
    """Train a copy of `model`; with a `checkpoint` a run that was broken off goes on from it.

    There is a report after every epoch, point that the tuning asks for and cut; then the
    checkpoint is written, which stays until you delete it. `on_report` returning False ends the
    run early.
    """
    task = checked(task)
    machine = machine or detect_machine(model, data.input_shape)
    course = _Course(copy.deepcopy(model), data, task, teacher, machine)
    if checkpoint is not None:
        course.open(checkpoint)
    try:
        log = course.run(on_report)
    except Diverged as problem:
        kept = "" if checkpoint is None else f"; the last good state is kept in {checkpoint}"
        raise Diverged(f"{problem}{kept}") from problem
    return conclude(course.network, course.left, task, log)


def checked(task: GateTask) -> GateTask:
    """The task, its target within reach; one without a target, or beyond all reach, is refused."""
    if task.limits == (None, None):
        raise UserError("gates need a target, got none; give flops, params or both")
    atoms = task.space.channel_map.atoms
    if task.scores is not None and task.scores.shape != (atoms,):
        raise UserError(
            f"scores must be one number an atom, [{atoms}], got {list(task.scores.shape)}; "
            "compute them from this network's channel map"
        )
    return replace(task, target=within_reach(task.space, task.target, task.settings.floor))


def start_values(task: GateTask) -> NDArray[np.float64]:
    """Where the gates begin: by the rank of their scores, or all at 1."""
    atoms = task.space.channel_map.atoms
    if task.scores is None:
        return np.ones(atoms)
    rank = np.argsort(np.argsort(task.scores, kind="stable"), kind="stable")
    return LOWEST_START + (1 - LOWEST_START) * rank / max(1, atoms - 1)


class _Course:
    """A run of gate training: the present session, and which atoms are still in its network."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        task: GateTask,
        teacher: Teacher | None,
        machine: Machine,
    ) -> None:
        self.dense, self.data, self.task = model, data, task
        self.teacher, self.machine = teacher, machine
        self.checkpoint: Path | None = None
        self.left = np.ones(task.space.channel_map.atoms, dtype=bool)
        self.session = self._session(model, torch.from_numpy(start_values(task)))
        every = task.settings.shrink_every
        # widths in multiples are the solver's business: atoms cut one by one would break them
        whole = every is None or task.space.round_to > 1
        steps = self.session.total if every is None else every * self.session.steps_per_epoch
        self.every = None if whole else max(1, round(steps))

    @property
    def network(self) -> GatedNetwork:
        """The gated network in training."""
        network = self.session.model
        assert isinstance(network, GatedNetwork)
        return network

    def open(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, or write the first one."""
        self.checkpoint = checkpoint
        if not checkpoint.exists():
            self._save()
            return
        removed = read_settings(checkpoint).get("removed")
        if isinstance(removed, list) and removed:
            self.left[np.array(removed)] = False
            inner = cut(self.dense, self.task.space.channel_map, self.left)
            self.session = self._session(inner, torch.ones(int(self.left.sum())))
        restore_session(self.session, checkpoint, self._settings())

    def run(self, on_report: Report | None) -> TrainLog:
        """Train to the end, from report to report and from cut to cut."""
        begin, first = time.perf_counter(), self.session.step
        history: list[Progress] = []
        ended: Literal["finished", "stopped", "max_seconds"] = "finished"
        for goal in sorted({*report_steps(self.session), *self._cuts()}):
            if not self.session.advance(goal, begin=begin):
                ended = "max_seconds"
            history.append(progress_of(self.session, first, time.perf_counter() - begin))
            if self.every is not None and self.session.step % self.every == 0:
                self._shrink(max(self.every, round(PATIENCE * self.session.total)))
            self._save()
            if ended == "max_seconds":
                break
            if on_report is not None and on_report(history[-1]) is False:
                ended = "finished" if goal == self.session.total else "stopped"
                break
        self.session.finish()
        return TrainLog(
            steps=self.session.step,
            epochs=self.session.epoch,
            seconds=time.perf_counter() - begin,
            reading_seconds=self.session.reading_seconds,
            images=(self.session.step - first) * self.session.batch_size,
            history=tuple(history),
            machine=self.machine,
            ended=ended,
        )

    def _session(self, inner: nn.Module, values: torch.Tensor) -> Session:
        """A session at step 0 over a network that has the atoms left."""
        task, settings = self.task, self.task.settings
        channel_map = reduce_map(task.space.channel_map, self.left)
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
        guidance = Guidance(
            teacher=self.teacher,
            penalty=SizeTerm(network, Price(channel_map), task),
            own_rates=(OwnRate(network.gates, lambda share: settings.rate(share) / total),),
        )
        return Session(
            network,
            self.data,
            settings.tuning,
            seed=task.seed,
            guidance=guidance,
            machine=self.machine,
        )

    def _cuts(self) -> range:
        """The steps ahead after which there may be something to cut."""
        if self.every is None:
            return range(0)
        first = self.session.step - self.session.step % self.every + self.every
        return range(first, self.session.total, self.every)

    def _shrink(self, patience: int) -> None:
        """Cut what is closed for good; a smaller session goes on."""
        old, network = self.session, self.network
        if self.task.settings.progress(old.step / old.total) < 1:
            return  # the aim still falls, and the balance of layers is not found yet
        channel_map = reduce_map(self.task.space.channel_map, self.left)
        space = Space(channel_map, Price(channel_map), network.floor)
        keep = ~closed_for_good(network, patience, space, Target(*self.task.limits))
        if keep.all():
            return
        self.left = expand_mask(self.left, keep)
        inner = cut(network.model, channel_map, keep)
        self.session = self._session(inner, torch.ones(int(keep.sum())))
        carry_gates(network, self.network, keep)
        carry_momentum(old, self.session, channel_map, keep)
        self.session.seek(old.step)
        self.session.reading_seconds = old.reading_seconds

    def _save(self) -> None:
        if self.checkpoint is not None:
            save_session(self.session, self.checkpoint, self._settings())

    def _settings(self) -> dict[str, object]:
        """What decides the result, and which atoms are gone already."""
        task = self.task
        return {
            "gates": asdict(task.settings),
            "target": task.target.to_json(),
            "map": map_digest(task.space.channel_map),
            "limits": [task.space.min_channels, task.space.round_to],
            "start": start_values(task).tolist(),
            "seed": task.seed,
            "machine": asdict(self.machine),
            "removed": np.flatnonzero(~self.left).tolist(),
        }
