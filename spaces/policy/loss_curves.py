"""Loss curves: how much the loss rises when a group loses its k lowest atoms, all else whole.

    dL_g(k) = | mean CE(the k lowest atoms of group g masked) - mean CE(original) |

(Li et al. 2020). Between the probed k the table is isotonic and linear: removing more never helps.
A probe that is NaN or infinite is an infinite rise, and so is every larger cut of its group.
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
    """How curves are probed; everything here but `memory` decides the numbers.

    curve: `points` log-spaced cuts a group, then `refine` more where the curve bends.
    paper: bisection for `threshold`, floor(log2 n) cuts a group.
    eval probes use the running statistics of the norms, batch probes those of each batch.
    """

    method: str = "curve"
    probe: str = "eval"
    threshold: float = 0.019  # of the bisection; the paper's for a ResNet-56
    points: int = 5
    refine: int = 2
    images: int = 2048
    batch_size: int = 128
    memory: int = 1 << 30  # bytes of activations kept between probes; beyond, they are run again

    def __post_init__(self) -> None:
        """Refuse settings that probe nothing."""
        check_choice("curve method", self.method, CURVE_METHODS)
        check_choice("probe", self.probe, PROBE_MODES)
        check_range("threshold", self.threshold, 0.0, 1e9)
        check_range("points", self.points, 1, 1000)
        check_range("refine", self.refine, 0, 1000)
        check_range("calibration images", self.images, 1, 10**9)
        check_range("batch_size", self.batch_size, 1, 10**6)


@dataclass(frozen=True, slots=True, eq=False)
class LossCurves:
    """The probes of every group of one network, with all that is needed to read them."""

    base: float  # the loss before any probe's cut
    place: Int32Array  # [A], 1 = the first of its group to go
    group: Int32Array  # [P], of every probe
    removed: Int32Array  # [P], how many atoms of the group it masked
    rise: Scores  # [P], its loss less that of the group left whole; inf where it was not finite
    around: BoolArray  # [A], the mask of the other groups meanwhile
    settings: CurveSettings

    @property
    def failures(self) -> int:
        """How many probes were NaN or infinite."""
        return int(np.isinf(self.rise).sum())

    def probes(self, group: int) -> dict[int, float]:
        """The variations measured of one group, by number removed; 0 for none."""
        own = self.group == group
        measured = zip(self.removed[own].tolist(), self.rise[own].tolist(), strict=True)
        return {0: 0.0} | {removed: abs(rise) for removed, rise in measured}


def curves_name(score: str, combine: str = "sum", probe: str = "eval") -> str:
    """The name of curves in the evidence: what orders the atoms, and how they are probed."""
    ways = (combine if combine != "sum" else "", "batch statistics" if probe == "batch" else "")
    return ", ".join([score, *filter(None, ways)])


def required_curves(policies: Iterable[Policy]) -> dict[str, Policy]:
    """The names of the curves that these policies are decoded from, each with one that asks."""
    budgets = (policy for policy in policies if policy.allocation == "loss-budget")
    return {curves_name(one.score, one.combine, one.probe): one for one in budgets}


def removal_positions(scores: Scores, channel_map: ChannelMap) -> Int32Array:
    """When each atom goes within its group, the lowest score first; ties by index: int32 [A]."""
    order = np.lexsort((scores, channel_map.group_of))
    sizes = np.bincount(channel_map.group_of, minlength=len(channel_map.groups))
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.empty(channel_map.atoms, dtype=np.int32)
    places[order] = np.arange(channel_map.atoms) - starts + 1
    return places


def isotonic_regression(values: Scores) -> Scores:
    """The closest non-decreasing numbers: max over j <= i of min over k >= i of mean(j..k)."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    j, k = np.indices((len(values), len(values)))
    means = (total[k + 1] - total[j]) / np.maximum(k + 1 - j, 1)
    lowest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
    fitted: Scores = np.where(j <= k, lowest, -np.inf).max(axis=0)
    return fitted


def rise_table(probes: dict[int, float], size: int) -> Scores:
    """The rise at 0..size-1 atoms removed; beyond the last probe it stays as steep as there."""
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
    """The table of every group."""
    sizes = np.bincount(channel_map.group_of, minlength=len(channel_map.groups))
    return [rise_table(curves.probes(g), int(size)) for g, size in enumerate(sizes)]


def bisect_removed_count(size: int, stays_under: Callable[[int], bool]) -> int:
    """The paper's search for the largest cut of a group: exactly floor(log2 size) questions."""
    removed = step = size // 2
    best = 0
    for _ in range(max(size.bit_length() - 1, 0)):
        under = stays_under(removed)
        best = removed if under else best
        step //= 2
        removed += step if under else -step
    return best


def curves_to_arrays(curves: LossCurves) -> NamedArrays:
    """Arrays to save as evidence."""
    tables: NamedArrays = {
        name: getattr(curves, name) for name in ("place", "group", "removed", "rise", "around")
    }
    return tables | {
        "base": np.array(curves.base),
        "settings": np.array(json.dumps(asdict(curves.settings))),
    }


def curves_from_arrays(tables: NamedArrays) -> LossCurves:
    """The curves that `curves_to_tables` took apart."""
    arrays: dict[str, NDArray[Any]] = {
        name: tables[name] for name in ("place", "group", "removed", "rise", "around")
    }
    settings = CurveSettings(**json.loads(str(tables["settings"])))
    return LossCurves(base=float(tables["base"]), settings=settings, **arrays)
