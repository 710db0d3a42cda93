"""Chunks of random masks: the parts of an ensemble that any worker may measure.

    sums of an ensemble = sums of chunk 0 + sums of chunk 1 + ...      added in this order

The masks and images of a chunk depend on (seed, chunk) only, so every worker gets the same result.
A worker returns targets and gradient sums only. The main process draws the masks again and builds
the normal equations itself, because their matrix is far larger than the targets.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .gradients import GradientSums, empty_gradients
from .masked_loss import MaskedLossProbe
from .masks import Masks, draw_masks
from .result import MeasurementEffort
from .settings import EnsembleSettings

Values = NDArray[np.float64]
CHUNK_SIZES = {"sample": 256, "batch": 16, "gradient": 256}  # masks per chunk
HELD_OUT_CHUNKS = (1, 3, 5, 7)  # held out: predicted at each check, never fitted


@dataclass(frozen=True, slots=True, eq=False)
class ChunkSampler:
    """Draws the masks and the images of each chunk."""

    settings: EnsembleSettings
    group_of: NDArray[np.int32]  # [A]
    images: int
    seed: int

    @property
    def size(self) -> int:
        """Masks per chunk; fewer under a low limit, so that some chunks are held out."""
        settings = self.settings
        return min(CHUNK_SIZES[settings.per], max(settings.max_samples // 8, 2))

    def masks(self, chunk: int) -> Masks:
        """The masks of a chunk, bool [size, A]."""
        settings = self.settings
        return draw_masks(
            self.size,
            self.group_of,
            keep=settings.keep,
            spread=settings.spread,
            how=settings.draw,
            rng=np.random.default_rng([self.seed, chunk]),
        )

    def rows(self, chunk: int) -> NDArray[np.int64]:
        """Image indices of a chunk, from a sequence of shuffled epochs."""
        count, size = self.images, self.size
        positions = np.arange(chunk * size, (chunk + 1) * size)
        epochs = np.unique(positions // count)
        orders = {e: np.random.default_rng([self.seed, e, 1]).permutation(count) for e in epochs}
        return np.array([orders[p // count][p % count] for p in positions])


@dataclass(frozen=True, slots=True, eq=False)
class ChunkResult:
    """Targets [size] of a chunk, NaN where they or their gradients are not finite."""

    targets: Values
    gradients: GradientSums | None


@dataclass(frozen=True, slots=True, eq=False)
class ChunkGroupResult:
    """Results of several chunks, their effort, and the batch size that fitted into memory."""

    chunks: tuple[ChunkResult, ...]
    effort: MeasurementEffort
    batch: int


def measure_part(
    probe: MaskedLossProbe, sampler: ChunkSampler, chunks: Sequence[int]
) -> ChunkGroupResult:
    """Measure chunks with a new probe."""
    started = time.perf_counter()
    found = tuple(measure_chunk(probe, sampler, chunk) for chunk in chunks)
    return ChunkGroupResult(found, probe.effort(time.perf_counter() - started), probe.size)


def measure_chunk(probe: MaskedLossProbe, sampler: ChunkSampler, chunk: int) -> ChunkResult:
    """Measure the targets of one chunk."""
    per, masks = sampler.settings.per, sampler.masks(chunk)
    if per == "batch":
        return ChunkResult(np.array([probe.set_change(mask) for mask in masks]), None)
    rows = sampler.rows(chunk)
    if per == "sample" or chunk in HELD_OUT_CHUNKS:
        return ChunkResult(probe.sample_changes(masks, rows), None)
    targets, gradients = probe.sample_gradients(masks, rows)
    finite = np.isfinite(targets) & np.isfinite(gradients).all(axis=1)
    sums = empty_gradients(masks.shape[1])
    sums.add(masks[finite], targets[finite], gradients[finite])
    return ChunkResult(np.where(finite, targets, np.nan), sums)
