"""The parts of an ensemble: chunks of random masks, which any worker may measure.

    sums of an ensemble = sums of chunk 0 + sums of chunk 1 + ...      added in this order

A chunk's masks and images are drawn from (seed, chunk) alone, so it is the same whoever measures
it. What is sent back are its targets, and the sums of its gradients: with the masks, drawn again,
they make the normal equations, whose matrix would be the larger thing to send by far.
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
CHUNK_SIZES = {"sample": 256, "batch": 16, "gradient": 256}  # masks drawn at once
HELD_OUT_CHUNKS = (1, 3, 5, 7)  # chunks that are predicted and never fitted


@dataclass(frozen=True, slots=True, eq=False)
class ChunkSampler:
    """What is drawn for each chunk."""

    settings: EnsembleSettings
    group_of: NDArray[np.int32]  # [A]
    images: int
    seed: int

    @property
    def size(self) -> int:
        """Masks a chunk; fewer where the limit is low, so that some are held out."""
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
        """The images of a chunk: shuffled epochs, one after the other."""
        count, size = self.images, self.size
        places = np.arange(chunk * size, (chunk + 1) * size)
        epochs = np.unique(places // count)
        orders = {e: np.random.default_rng([self.seed, e, 1]).permutation(count) for e in epochs}
        return np.array([orders[place // count][place % count] for place in places])


@dataclass(frozen=True, slots=True, eq=False)
class ChunkResult:
    """What came of a chunk: targets [size], NaN where they or gradients are not finite."""

    targets: Values
    gradients: GradientSums | None


@dataclass(frozen=True, slots=True, eq=False)
class ChunkGroupResult:
    """What came of several chunks, what it took, and how many images were run at once."""

    chunks: tuple[ChunkResult, ...]
    effort: MeasurementEffort
    batch: int


def measure_part(
    probe: MaskedLossProbe, draws: ChunkSampler, chunks: Sequence[int]
) -> ChunkGroupResult:
    """Measure chunks with a probe that has done nothing before."""
    begin = time.perf_counter()
    found = tuple(measure_chunk(probe, draws, chunk) for chunk in chunks)
    return ChunkGroupResult(found, probe.effort(time.perf_counter() - begin), probe.size)


def measure_chunk(probe: MaskedLossProbe, draws: ChunkSampler, chunk: int) -> ChunkResult:
    """The targets of a chunk's masks."""
    per, masks = draws.settings.per, draws.masks(chunk)
    if per == "batch":
        return ChunkResult(np.array([probe.set_change(mask) for mask in masks]), None)
    rows = draws.rows(chunk)
    if per == "sample" or chunk in HELD_OUT_CHUNKS:
        return ChunkResult(probe.sample_changes(masks, rows), None)
    targets, gradients = probe.sample_gradients(masks, rows)
    finite = np.isfinite(targets) & np.isfinite(gradients).all(axis=1)
    sums = empty_gradients(masks.shape[1])
    sums.add(masks[finite], targets[finite], gradients[finite])
    return ChunkResult(np.where(finite, targets, np.nan), sums)
