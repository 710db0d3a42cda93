"""Loss changes, and their gradients, of a network under random masks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...trainers.data.splits import DataSplits, Split, normalize_images
from ...trainers.metrics.evaluate import logits_of
from ...trainers.pruning.masking import masked
from ...trainers.runtime.device import (
    DeviceConfig,
    autocast,
    halve_batch,
    thread_limit,
    to_memory_format,
)
from ...trainers.runtime.modes import eval_mode
from .masks import Masks
from .result import MeasurementEffort
from .settings import EnsembleSettings

Values = NDArray[np.float64]
RowIndices = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class MaskedLossProbe:
    """Runs calibration images through a network under masks, and counts the images."""

    model: nn.Module
    channel_map: ChannelMap
    data: DataSplits
    split: Split
    settings: EnsembleSettings
    machine: DeviceConfig
    forwards: int = 0  # images
    backwards: int = 0  # images
    halvings: int = 0  # of the batch size, when memory ran out
    size: int = 0  # images per batch
    dense: Values = field(default_factory=lambda: np.zeros(0))  # transformed losses without a mask

    def __post_init__(self) -> None:
        """Start with the batch size of the settings."""
        self.size = min(self.settings.batch, len(self.split))

    def effort(self, seconds: float) -> MeasurementEffort:
        """The effort so far, with the given duration."""
        return MeasurementEffort(
            forwards=self.forwards,
            backwards=self.backwards,
            halvings=self.halvings,
            seconds=seconds,
        )

    def sample_changes(self, masks: Masks, rows: RowIndices) -> Values:
        """Rise of the transformed loss of each image under its own mask: [n]."""
        self.measure_dense()
        losses = self._run_in_batches(
            len(rows), lambda part: self._losses(masks[part], rows[part])
        )
        return self._transform(losses) - self.dense[rows]

    def sample_gradients(self, masks: Masks, rows: RowIndices) -> tuple[Values, Values]:
        """The rises of `sample_changes`, and the negative gradient in each mask: [n], [n, A]."""
        self.measure_dense()

        def both(part: slice) -> Values:
            losses, gradients = self._gradients(masks[part], rows[part])
            return np.concatenate((losses[:, None], gradients), axis=1)

        found = self._run_in_batches(len(rows), both)
        return found[:, 0] - self.dense[rows], found[:, 1:]

    def set_change(self, mask: Masks) -> float:
        """Rise of the loss, or of the error rate, of the whole set under one mask [A]."""
        self.measure_dense()
        rows = np.arange(len(self.split))
        values = self._run_in_batches(len(rows), lambda part: self._losses(mask, rows[part]))
        means = np.array([values.mean(), self.dense.mean()])
        masked_mean, dense_mean = self._transform(means)
        return float(masked_mean - dense_mean)

    def taylor(self) -> Values:
        """Mean over images of |gradient| in the atoms' gates, without a mask: [A].

        If the network regroups its batch, there is one gate per batch instead of one per sample.
        """
        rows = np.arange(len(self.split))
        own = self.supports_sample_masks()

        def absolute(part: slice) -> Values:
            count = len(rows[part])
            gates = np.ones((count, self.channel_map.atoms) if own else self.channel_map.atoms)
            found = np.abs(self._gradients(gates > 0, rows[part])[1])
            finite = np.isfinite(found).all(axis=1)
            return np.asarray(found[finite].sum(axis=0, keepdims=True))

        return np.asarray(self._run_in_batches(len(rows), absolute).sum(axis=0) / len(rows))

    def supports_sample_masks(self) -> bool:
        """Whether each sample can have its own mask; False if the network regroups its batch."""
        count = min(3, len(self.split))
        try:
            self._losses(np.ones((count, self.channel_map.atoms), dtype=bool), np.arange(count))
        except UserError:
            return False
        return True

    def measure_dense(self) -> None:
        """Measure the losses without a mask, unless they are set."""
        if not len(self.dense):
            rows = np.arange(len(self.split))
            whole = np.ones(self.channel_map.atoms, dtype=bool)
            values = self._run_in_batches(len(rows), lambda part: self._losses(whole, rows[part]))
            self.dense = values if self.settings.per == "batch" else self._transform(values)

    def _transform(self, losses: Values) -> Values:
        plain = self.settings.transform == "plain" or self.settings.measure == "accuracy"
        return losses if plain else np.log1p(losses)

    def _losses(self, masks: Masks, rows: RowIndices) -> Values:
        """Loss, or 0/1 error, of each row: [n]; masks are [A] or [n, A]."""
        with torch.no_grad(), self._running():
            logits, labels = self._forward(torch.from_numpy(np.array(masks)), rows)
            if self.settings.measure == "accuracy":
                values = logits.argmax(1) != labels
            else:
                values = functional.cross_entropy(logits, labels, reduction="none")
        return _to_numpy(values)

    def _gradients(self, masks: Masks, rows: RowIndices) -> tuple[Values, Values]:
        """Transformed losses [n] and their negative gradients in the masks, [n, A] or [1, A]."""
        gates = torch.from_numpy(masks.astype(np.float32)).requires_grad_()
        with self._running():
            logits, labels = self._forward(gates, rows)
            losses = functional.cross_entropy(logits, labels, reduction="none")
            values = losses.log1p() if self.settings.transform == "log1p" else losses
            (gradients,) = torch.autograd.grad(values.sum(), gates)
        self.backwards += len(rows)
        return _to_numpy(values.detach()), np.atleast_2d(-_to_numpy(gradients))

    def _forward(self, masks: Tensor, rows: RowIndices) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(rows)
        images = normalize_images(self.split.images[index].to(self.machine.device), self.data)
        labels = self.split.labels[index].to(self.machine.device)
        with (
            masked(self.model, self.channel_map, masks),
            autocast(self.machine, exact=self.data.outputs.exact),
        ):
            logits = logits_of(self.model(to_memory_format(images, self.machine)), self.data)
        self.forwards += len(rows)
        return logits.float(), labels

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        with eval_mode(self.model), thread_limit(self.machine):
            if self.settings.norms == "running":
                yield
                return
            with batch_norm_on_batches(self.model):
                yield

    def _run_in_batches(self, count: int, run: Callable[[slice], Values]) -> Values:
        """Run all rows in batches, halving the batch size if memory runs out: [count, ...]."""
        parts: list[Values] = []
        done = 0
        while done < count:
            part = slice(done, min(done + self.size, count))
            try:
                parts.append(run(part))
            except (MemoryError, RuntimeError) as error:
                self.size, self.halvings = halve_batch(self.size, error), self.halvings + 1
                continue
            done = part.stop
        return np.concatenate(parts)


def _to_numpy(values: Tensor) -> Values:
    return np.asarray(values.double().cpu().numpy())


@contextlib.contextmanager
def batch_norm_on_batches(model: nn.Module) -> Iterator[None]:
    """Make batch norms use batch statistics; their running statistics do not change."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    modes = [norm.training for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, training in zip(norms, modes, strict=True):
            norm.training, norm.track_running_stats = training, True
