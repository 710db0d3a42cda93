"""The time of all loss curves of a network: prefixes shared, against every probe from its start.

    python -m benchmarks.curves [--model resnet56] [--images 2048] [--every 1]
        [--methods curve,paper] [--out FILE]

Both ways run on one core in float32 and measure the very same cuts; the record says how far their
rises differ at most. Seconds are processor time, so a busy machine changes little. The shared way
is timed whole, with the listing of the operations. With `--every N` the plain way runs each Nth
probe only, and its total is their mean times all of them.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import cifar_jpeg
from benchmarks.cells import fill
from paretoprune.analysis.jobs import MeasuredNetwork
from paretoprune.analysis.loss_curves.measure import measure_curves
from paretoprune.analysis.loss_curves.prober import LossProber
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.loss_curves import CurveSettings, LossCurves
from paretoprune.trainers.data.batches import fixed_subset
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.models.weights import load_weights
from paretoprune.trainers.runtime.device import DeviceConfig

PUBLISHED = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}


def subject_of(name: str) -> MeasuredNetwork:
    """A network with published weights on CIFAR-10."""
    data = cifar_jpeg.whole()
    built = build_model(name, classes=data.classes, input_shape=data.input_shape, seed=0)
    load_weights(built, cifar_jpeg.weights_folder() / PUBLISHED[name])
    model, _ = make_working_copy(built)
    channel_map = trace_channel_map(model, tuple(data.input_shape))
    return MeasuredNetwork(model, channel_map, data, DeviceConfig(channels_last=True))


def plain_way(subject: MeasuredNetwork, curves: LossCurves, every: int) -> tuple[float, float]:
    """Seconds a probe from the start, and the largest difference of a rise, of each nth probe."""
    whole = np.ones(subject.channel_map.atoms, dtype=bool)
    split = fixed_subset(subject.data.train, curves.settings.images)
    prober = LossProber(subject, split, curves.settings, around=whole, share_prefixes=False)
    start, worst = time.process_time(), 0.0
    base = prober.losses(0, [whole])[0]
    for probe in range(0, len(curves.rise), every):
        group, removed = curves.group[probe], curves.removed[probe]
        keep = (subject.channel_map.group_of != group) | (curves.place > removed)
        rise = prober.losses(0, [keep])[0] - base
        worst = max(worst, abs(rise - float(curves.rise[probe])))
    return (time.process_time() - start) / prober.evaluations, worst


def measure(subject: MeasuredNetwork, settings: CurveSettings, every: int) -> dict[str, Any]:
    """Both ways of one method."""
    order = np.random.default_rng(0).random(subject.channel_map.atoms)
    start = time.process_time()
    curves = measure_curves(subject, order, settings)
    shared = time.process_time() - start
    alone, worst = plain_way(subject, curves, every)
    plain = alone * (len(curves.rise) + 1)  # and the whole network's own loss
    return {
        "probes": len(curves.rise),
        "shared_seconds": round(shared, 1),
        "plain_seconds": round(plain, 1),
        "ratio": round(plain / shared, 2),
        "largest_difference": worst,
        "plain_measured_every": every,
    }


def main() -> None:
    """Measure the methods that the file lacks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=list(PUBLISHED), default="resnet56")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--methods", default="curve,paper")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curves.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    subject = subject_of(asked.model)
    about = {
        "network": f"{asked.model}, published weights",
        "data": "CIFAR-10 (JPEG q75), train",
        "images": asked.images,
        "seconds": "of processor time, one thread",
        "torch": torch.__version__,
    }
    cells = {
        method: partial(
            measure, subject, CurveSettings(method=method, images=asked.images), asked.every
        )
        for method in asked.methods.split(",")
    }
    fill(asked.out, about, cells)


if __name__ == "__main__":
    main()
