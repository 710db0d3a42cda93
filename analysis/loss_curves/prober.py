"""Loss of a network under many masks of one group, with shared forward prefixes.

Groups are probed in forward order. A mask of a group changes nothing before the first layer that
reads the group, so the activations before that layer are kept for all calibration images, as far
as memory allows, and every mask continues from them. They are advanced from group to group: all
prefixes together cost one forward pass. Batches that do not fit into memory recompute their
prefix, once for all masks that are measured together. If torch.fx cannot trace the network, every
mask runs a whole forward pass.
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
from ...trainers.data.splits import Split
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
    """Measures losses; keeps the activations before the group measured last."""

    def __init__(
        self,
        network: MeasuredNetwork,
        split: Split,
        settings: CurveSettings,
        *,
        around: Mask,
        share_prefixes: bool = True,
    ) -> None:
        """Prepare a copy of the network in float32.

        Args:
            network: The network to measure.
            split: The calibration images.
            settings: Probe mode, batch size and memory limit.
            around: The mask [A] of all other groups.
            share_prefixes: False runs a whole forward pass for every mask.
        """
        machine = network.machine or device_config_for(network.model, network.data.input_shape)
        self._machine = replace(machine, bf16=False)  # bf16 is too coarse for small rises
        self._model = to_device(copy.deepcopy(network.model).eval(), self._machine)
        self._channel_map, self._data, self._split = network.channel_map, network.data, split
        self._around, self._memory = around, settings.memory
        self._set_batch_size(settings.batch_size)
        if settings.probe == "batch":
            use_batch_statistics(self._model)
        self._partial = self._build_partial_forward() if share_prefixes else None
        self.evaluations = 0

    @property
    def shares_prefixes(self) -> bool:
        """Whether masks share the activations before their group."""
        return self._partial is not None

    def position_of(self, group: int) -> int:
        """Position of the first operation that reads the group; probe groups in this order."""
        if self._partial is None:
            return 0
        atoms = np.flatnonzero(self._channel_map.group_of == group)
        layers = self._channel_map.layers
        reads = (layer for layer in layers if layer.kind in READER_KINDS)
        return self._partial.position_of(r.name for r in reads if np.isin(r.in_atoms, atoms).any())

    def losses(self, group: int, masks: Sequence[Mask]) -> list[float]:
        """Mean cross-entropy of masks [A] that differ from `around` in this group only.

        If memory runs out, the batch size is halved for this and all later calls.
        """
        while True:
            try:
                return self._losses(group, masks)
            except (MemoryError, RuntimeError) as error:
                self._set_batch_size(halve_batch(self._batch_size, error))

    def _set_batch_size(self, batch: int) -> None:
        """Split the images into equal batches of at most `batch` images."""
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
        if state is None or self._partial is None:
            output = self._model(images)
        else:
            output = self._partial.finish(state)
        logits = logits_of(output, self._data).double()
        return float(functional.cross_entropy(logits, labels, reduction="sum"))

    def _advance_states(self, group: int) -> None:
        """Advance the kept activations to the first layer that reads the group."""
        self._group, memory_left = group, self._memory
        goal = self.position_of(group)
        for index, (images, _) in enumerate(self._batches()):
            before, self._states[index] = self._states[index], None
            state = self._state_at(goal, images, before) if memory_left > 0 else None
            memory_left -= 0 if state is None else state.nbytes
            self._states[index] = state if memory_left >= 0 else None

    def _state_at(
        self, goal: int, images: Tensor, before: ForwardState | None
    ) -> ForwardState | None:
        if self._partial is None:
            return None
        if before is None or before.position > goal:
            before = self._partial.start(images)
        with masked(self._model, self._channel_map, self._around):
            return self._partial.advance(before, goal)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        reader = iterate_batches(
            self._split, self._data, batch_size=self._batch_size, device=self._machine.device
        )
        return ((to_memory_format(images, self._machine), labels) for images, labels in reader)

    def _build_partial_forward(self) -> PartialForward | None:
        """Trace the network for partial forward passes; None if torch.fx cannot trace it."""
        leaves = [layer.name for layer in self._channel_map.layers]
        images, _ = next(iter(self._batches()))
        model = copy.deepcopy(self._model)
        try:
            with torch.no_grad(), thread_limit(self._machine):
                partial = PartialForward(model, images[:2], leaves)
        except PartialForwardError:
            return None
        self._model = model
        return partial


def use_batch_statistics(model: nn.Module) -> None:
    """Make every batch norm use batch statistics, as if it were recalibrated."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = module.running_var = None
