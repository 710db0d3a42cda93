"""Measure the loss curves of a network: each group is pruned alone, by rising amounts.

    rise_g(k) = loss(the k atoms of group g with the lowest scores removed) - loss(unpruned)

Every probe is written to disk at once, so an interrupted measurement loses none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.layer_scores import Scores, combine_layers
from ...spaces.policy.loss_curves import (
    CurveSettings,
    LossCurves,
    curves_from_arrays,
    curves_to_arrays,
    removal_positions,
    required_curves,
)
from ...spaces.policy.measurements import Measurements, load_arrays, save_arrays
from ...spaces.policy.policy import Policy
from ..jobs import MeasuredNetwork
from ..scores.measure import calibration_split, measurement_key
from .probe_log import UNPRUNED, ProbeLog
from .probe_points import PROBE_STRATEGIES
from .prober import LossProber, Mask

GroupLossFunction = Callable[[int, Sequence[Mask]], list[float]]  # group, masks -> losses
OnGroupMeasured = Callable[[int, int], None]  # groups done, groups in all


def measure_curves(
    network: MeasuredNetwork,
    order: Scores,
    settings: CurveSettings,
    *,
    folder: Path | None = None,
    around: Mask | None = None,
    on_progress: OnGroupMeasured | None = None,
) -> LossCurves:
    """Measure the curves of all groups on images of the train split.

    Args:
        network: The network to measure.
        order: Scores [A]; the atoms with the lowest scores are removed first.
        settings: Probes, images and batch size.
        folder: Keeps probes and curves. Existing ones are read, also of an interrupted run.
        around: The mask [A] of all other groups. Default: unpruned.
        on_progress: Receives the number of groups done and of all groups.
    """
    channel_map = network.channel_map
    around = np.ones(channel_map.atoms, dtype=bool) if around is None else around
    split = calibration_split(network.data, settings.images)
    base = measurement_key(network.model, channel_map, network.data, split, 0)
    place = removal_positions(order, channel_map)
    key = curves_key(base, settings, (place, around))
    known = load_arrays(key, folder) if folder else None
    if known is not None:
        return curves_from_arrays(known)
    prober = LossProber(network, split, settings, around=around)
    log = ProbeLog(folder / f"{key}.probes.jsonl" if folder else None)
    measurement = CurveMeasurement(channel_map, place, around, settings, prober.losses, log)
    groups = sorted(range(len(channel_map.groups)), key=prober.position_of)
    curves = measurement.run(groups, on_progress)
    if folder:
        save_arrays(key, curves_to_arrays(curves), folder)
        log.delete()
    return curves


def add_loss_curves(
    measurements: Measurements,
    policies: Iterable[Policy],
    network: MeasuredNetwork,
    *,
    folder: Path | None,
    settings: CurveSettings | None = None,
    on_progress: OnGroupMeasured | None = None,
) -> Measurements:
    """Return the measurements with the curves of every policy that needs them."""
    curves = dict(measurements.curves)
    for name, policy in required_curves(policies).items():
        if name in curves:
            continue
        order = combine_layers(
            measurements.scores[policy.score], network.channel_map, policy.combine
        )
        curve_settings = replace(settings or CurveSettings(), probe=policy.probe)
        curves[name] = measure_curves(
            network, order, curve_settings, folder=folder, on_progress=on_progress
        )
    return replace(measurements, curves=curves)


def curves_key(base: str, settings: CurveSettings, arrays: Iterable[NDArray[np.generic]]) -> str:
    """Hash of everything that the probes depend on; `base` is the hash of network and images."""
    values = {name: value for name, value in asdict(settings).items() if name != "memory"}
    digest = hashlib.sha256(json.dumps([base, values], sort_keys=True).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, eq=False)
class CurveMeasurement:
    """The probes of one network by one strategy, kept in a probe log."""

    channel_map: ChannelMap
    place: NDArray[np.int32]  # [A], rank at which an atom is removed from its group
    around: Mask
    settings: CurveSettings
    loss_of: GroupLossFunction
    log: ProbeLog

    def run(self, groups: Sequence[int], on_progress: OnGroupMeasured | None = None) -> LossCurves:
        """Probe the groups in this order and return their curves."""
        sizes = np.bincount(self.channel_map.group_of, minlength=len(groups)).tolist()
        self._check_base(groups)
        for done, group in enumerate(groups, 1):

            def rises(removed: Sequence[int], group: int = group) -> list[float]:
                base = self._base_loss(group)
                return [loss_rise(loss, base) for loss in self._losses(group, removed)]

            PROBE_STRATEGIES[self.settings.method](sizes[group], rises, self.settings)
            if on_progress is not None:
                on_progress(done, len(groups))
        return self._curves()

    def _losses(self, group: int, removed: Sequence[int]) -> list[float]:
        """Loss after removing k atoms of a group, for each k; measured losses are reused."""
        missing = [k for k in removed if self.log.get((group, k)) is None]
        if missing:
            losses = self.loss_of(group, [self._mask(group, k) for k in missing])
            for k, loss in zip(missing, losses, strict=True):
                self.log.append((group, k), loss)
        return [self.log.require((group, k)) for k in removed]

    def _mask(self, group: int, removed: int) -> Mask:
        own = self.channel_map.group_of == group
        return np.where(own, self.place > removed, self.around)

    def _base_loss(self, group: int) -> float:
        """Loss with this group unpruned and the others as in `around`."""
        if self.around[self.channel_map.group_of == group].all():
            return self.log.require(UNPRUNED)
        return self._losses(group, [0])[0]

    def _check_base(self, groups: Sequence[int]) -> None:
        if self.log.get(UNPRUNED) is None:
            self.log.append(UNPRUNED, self.loss_of(groups[0], [self.around])[0])
        loss = self.log.require(UNPRUNED)
        if not math.isfinite(loss):
            raise UserError(
                f"the network's loss must be finite before curves are measured, got {loss}; "
                "check the weights and the images for NaN"
            )

    def _curves(self) -> LossCurves:
        rows = [(g, k, loss) for (g, k), loss in self.log.items() if g >= 0 and k > 0]
        return LossCurves(
            base=self.log.require(UNPRUNED),
            place=self.place,
            group=np.array([g for g, _, _ in rows], dtype=np.int32),
            removed=np.array([k for _, k, _ in rows], dtype=np.int32),
            rise=np.array([loss_rise(loss, self._base_loss(g)) for g, _, loss in rows]),
            around=self.around,
            settings=self.settings,
        )


def loss_rise(loss: float, base: float) -> float:
    """Rise of the loss; infinite if the loss is NaN or infinite."""
    return loss - base if math.isfinite(loss) else math.inf
