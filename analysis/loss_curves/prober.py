"""The loss of a network with some atoms masked, measured cheaply for many masks of one group.

Groups are probed in forward order. Up to the first layer that reads a group, its cuts change
nothing: the activations there are kept for all calibration images, as far as memory allows, and
every cut runs on from them. On the way to the next group they are carried along, so that all
prefixes together cost one forward pass. Batches that do not fit run their prefix again, once for
all cuts that are measured together. A network that torch.fx cannot list runs from its start.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ...spaces.policy.loss_curves import CurveSettings
from ...trainers.data.batches import iterate_batches
from ...trainers.data.types import Split
from ...trainers.metrics.evaluate import logits_of
from ...trainers.pruning.masking import READER_KINDS, masked
from ...trainers.pruning.partial_forward import ForwardState, PartialForward, PartialForwardError
from ...trainers.runtime.device import (
    device_config_for,
    halve_batch,
    thread_limit,
    to_device,
    to_memory_format,
)
from ..jobs import MeasuredNetwork

Mask = NDArray[np.bool_]


class LossProber:
    """Measures losses; keeps the activations before the group that it measured last."""

    def __init__(
        self,
        subject: MeasuredNetwork,
        split: Split,
        settings: CurveSettings,
        *,
        around: Mask,
        share_prefixes: bool = True,
    ) -> None:
        """`around` masks the prefix; `replay=False` runs every probe from its start."""
        machine = subject.machine or device_config_for(subject.model, subject.data.input_shape)
        self._machine = replace(machine, bf16=False)  # small differences are what is measured
        self._model = to_device(copy.deepcopy(subject.model).eval(), self._machine)
        self._channel_map, self._data, self._split = subject.channel_map, subject.data, split
        self._around, self._memory = around, settings.memory
        self._set_batch_size(settings.batch_size)
        if settings.probe == "batch":
            use_batch_statistics(self._model)
        self._replay = self._build_partial_forward() if share_prefixes else None
        self.evaluations = 0

    @property
    def shares_prefixes(self) -> bool:
        """Whether prefixes are shared."""
        return self._replay is not None

    def position_of(self, group: int) -> int:
        """Where the group's cuts begin to matter; groups are best probed in this order."""
        if self._replay is None:
            return 0
        atoms = np.flatnonzero(self._channel_map.group_of == group)
        layers = self._channel_map.layers
        reads = (layer for layer in layers if layer.kind in READER_KINDS)
        return self._replay.position_of(r.name for r in reads if np.isin(r.in_atoms, atoms).any())

    def losses(self, group: int, masks: Sequence[Mask]) -> list[float]:
        """The mean cross-entropy of masks [A] that differ from `around` in this group only.

        Where memory runs out, batches are halved from here on.
        """
        while True:
            try:
                return self._losses(group, masks)
            except (MemoryError, RuntimeError) as error:
                self._set_batch_size(halve_batch(self._batch_size, error))

    def _set_batch_size(self, batch: int) -> None:
        """Part the images into even batches, for their statistics, of no more than so many."""
        count = -(-len(self._split) // batch)
        self._batch_size = -(-len(self._split) // count)
        self._group: int | None = None
        self._states: list[ForwardState | None] = [None] * count

    @torch.no_grad()
    def _losses(self, group: int, masks: Sequence[Mask]) -> list[float]:
        total = np.zeros(len(masks))
        with thread_limit(self._machine):
            if group != self._group:
                self._advance_states(group)
            for index, (images, labels) in enumerate(self._batches()):
                state = self._states[index] or self._state_at(
                    self.position_of(group), images, None
                )
                for row, keep in enumerate(masks):
                    with masked(self._model, self._channel_map, keep):
                        total[row] += self._loss(state, images, labels)
        self.evaluations += len(masks)
        means: list[float] = (total / len(self._split)).tolist()
        return means

    def _loss(self, state: ForwardState | None, images: Tensor, labels: Tensor) -> float:
        if state is None or self._replay is None:
            output = self._model(images)
        else:
            output = self._replay.finish(state)
        logits = logits_of(output, self._data).double()
        return float(functional.cross_entropy(logits, labels, reduction="sum"))

    def _advance_states(self, group: int) -> None:
        """Carry the kept activations to the first layer that reads the group."""
        self._group, room = group, self._memory
        goal = self.position_of(group)
        for index, (images, _) in enumerate(self._batches()):
            before, self._states[index] = self._states[index], None
            state = self._state_at(goal, images, before) if room > 0 else None
            room -= 0 if state is None else state.nbytes
            self._states[index] = state if room >= 0 else None

    def _state_at(
        self, goal: int, images: Tensor, before: ForwardState | None
    ) -> ForwardState | None:
        if self._replay is None:
            return None
        if before is None or before.position > goal:
            before = self._replay.start(images)
        with masked(self._model, self._channel_map, self._around):
            return self._replay.advance(before, goal)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        reader = iterate_batches(
            self._split, self._data, batch_size=self._batch_size, device=self._machine.device
        )
        return ((to_memory_format(images, self._machine), labels) for images, labels in reader)

    def _build_partial_forward(self) -> PartialForward | None:
        """The network as operations; None where it cannot be."""
        leaves = [layer.name for layer in self._channel_map.layers]
        images, _ = next(iter(self._batches()))
        model = copy.deepcopy(self._model)
        try:
            with torch.no_grad(), thread_limit(self._machine):
                replay = PartialForward(model, images[:2], leaves)
        except PartialForwardError:
            return None
        self._model = model
        return replay


def use_batch_statistics(model: nn.Module) -> None:
    """Let every norm use the statistics of its batch, as recalibration will make of them."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = module.running_var = None
