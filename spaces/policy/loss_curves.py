"""Loss curves: the rise of the loss when the k lowest-scored atoms of one group are masked.

    dL_g(k) = | mean CE(the k lowest atoms of group g masked) - mean CE(original) |

(Li et al. 2020). Between the probed k, the curve is isotonic and piecewise linear: removing more
atoms never lowers it. A NaN or infinite probe makes the rise infinite from its k on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import BoolArray, Int32Array, NamedArrays
from ..graph.channels import ChannelMap
from .layer_scores import Scores
from .policy import PROBE_MODES, Policy, check_choice, check_range

CURVE_METHODS = ("curve", "paper")


@dataclass(frozen=True, slots=True)
class CurveSettings:
    """How loss curves are probed; all fields but `memory` affect the values.

    curve: `points` log-spaced cuts per group, then `refine` more where the curve bends most.
    paper: bisection for `threshold`, floor(log2 n) cuts per group.
    eval probes use the running statistics of the norms, batch probes those of each batch.
    """

    method: str = "curve"
    probe: str = "eval"
    threshold: float = 0.019  # of the bisection; the paper's value for ResNet-56
    points: int = 5
    refine: int = 2
    images: int = 2048
    batch_size: int = 128
    memory: int = 1 << 30  # bytes of activations cached between probes; the rest is recomputed

    def __post_init__(self) -> None:
        """Raise UserError for settings out of range."""
        check_choice("curve method", self.method, CURVE_METHODS)
        check_choice("probe", self.probe, PROBE_MODES)
        check_range("threshold", self.threshold, 0.0, 1e9)
        check_range("points", self.points, 1, 1000)
        check_range("refine", self.refine, 0, 1000)
        check_range("calibration images", self.images, 1, 10**9)
        check_range("batch_size", self.batch_size, 1, 10**6)


@dataclass(frozen=True, slots=True, eq=False)
class LossCurves:
    """The P probes of all groups of one network."""

    base: float  # loss of the network without a cut
    place: Int32Array  # [A], removal position within the group, from 1
    group: Int32Array  # [P], group of each probe
    removed: Int32Array  # [P], number of atoms masked
    rise: Scores  # [P], loss above that of the group without a cut; inf if not finite
    around: BoolArray  # [A], mask of the other groups during the probes
    settings: CurveSettings

    @property
    def failures(self) -> int:
        """The number of probes that were NaN or infinite."""
        return int(np.isinf(self.rise).sum())

    def probes(self, group: int) -> dict[int, float]:
        """Return the measured loss variations of one group by number of removed atoms; 0 -> 0."""
        own = self.group == group
        measured = zip(self.removed[own].tolist(), self.rise[own].tolist(), strict=True)
        return {0: 0.0} | {removed: abs(rise) for removed, rise in measured}


def curves_name(score: str, combine: str = "sum", probe: str = "eval") -> str:
    """Return the key of curves in `Measurements`: score, combination and probe mode."""
    parts = (combine if combine != "sum" else "", "batch statistics" if probe == "batch" else "")
    return ", ".join([score, *filter(None, parts)])


def required_curves(policies: Iterable[Policy]) -> dict[str, Policy]:
    """Return the names of the curves that policies read, each with one policy that reads it."""
    readers = (policy for policy in policies if policy.allocation == "loss-budget")
    return {curves_name(one.score, one.combine, one.probe): one for one in readers}


def removal_positions(scores: Scores, channel_map: ChannelMap) -> Int32Array:
    """Return each atom's removal position in its group [A], from 1, lowest score first."""
    order = np.lexsort((scores, channel_map.group_of))
    sizes = np.bincount(channel_map.group_of, minlength=len(channel_map.groups))
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.empty(channel_map.atoms, dtype=np.int32)
    places[order] = np.arange(channel_map.atoms) - starts + 1
    return places


def isotonic_regression(values: Scores) -> Scores:
    """Return the closest non-decreasing values, max_{j <= i} min_{k >= i} mean(j..k)."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    j, k = np.indices((len(values), len(values)))
    means = (total[k + 1] - total[j]) / np.maximum(k + 1 - j, 1)
    lowest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
    fitted: Scores = np.where(j <= k, lowest, -np.inf).max(axis=0)
    return fitted


def rise_table(probes: dict[int, float], size: int) -> Scores:
    """Return the rise at 0..size-1 removed atoms; past the last probe the last slope continues."""
    known = np.array(sorted(probes))
    heights = np.array([probes[k] for k in known.tolist()])
    finite = int(np.isinf(heights).argmax()) if np.isinf(heights).any() else len(known)
    known, heights, ends = (
        known[:finite],
        isotonic_regression(heights[:finite]),
        finite < len(known),
    )
    table = np.interp(np.arange(size), known, heights)
    if ends:
        table[known[-1] + 1 :] = np.inf
    elif len(known) > 1:
        slope = (heights[-1] - heights[-2]) / (known[-1] - known[-2])
        table[known[-1] :] += slope * np.arange(max(size - known[-1], 0))
    return table


def rise_tables(curves: LossCurves, channel_map: ChannelMap) -> list[Scores]:
    """Return the rise table of each group."""
    sizes = np.bincount(channel_map.group_of, minlength=len(channel_map.groups))
    return [rise_table(curves.probes(g), int(size)) for g, size in enumerate(sizes)]


def bisect_removed_count(size: int, stays_under: Callable[[int], bool]) -> int:
    """Bisect the largest cut of a group (Li et al. 2020): floor(log2 size) calls."""
    removed = step = size // 2
    best = 0
    for _ in range(max(size.bit_length() - 1, 0)):
        under = stays_under(removed)
        best = removed if under else best
        step //= 2
        removed += step if under else -step
    return best


def curves_to_arrays(curves: LossCurves) -> NamedArrays:
    """Convert curves to arrays for `save_arrays`."""
    tables: NamedArrays = {
        name: getattr(curves, name) for name in ("place", "group", "removed", "rise", "around")
    }
    return tables | {
        "base": np.array(curves.base),
        "settings": np.array(json.dumps(asdict(curves.settings))),
    }


def curves_from_arrays(tables: NamedArrays) -> LossCurves:
    """Restore the curves that `curves_to_arrays` converted."""
    arrays: dict[str, NDArray[Any]] = {
        name: tables[name] for name in ("place", "group", "removed", "rise", "around")
    }
    settings = CurveSettings(**json.loads(str(tables["settings"])))
    return LossCurves(base=float(tables["base"]), settings=settings, **arrays)
