"""The time of all loss curves of a network: prefixes shared, against every probe from its start.

    python -m benchmarks.curves [--model resnet56] [--images 2048] [--every 1] [--out FILE]

Both ways run on one core in float32 and measure the very same cuts; the table says how far their
losses differ at most. The shared way is timed whole, with the listing of the operations. With
`--every N` the plain way runs each Nth probe only, and its total is their mean times all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks import cifar_jpeg
from paretoprune.analysis.curves.measure import measure_curves
from paretoprune.analysis.curves.prober import Prober, Subject
from paretoprune.spaces.curves import Curves, CurveSettings
from paretoprune.spaces.trace import trace_channels
from paretoprune.spaces.working_copy import working_copy
from paretoprune.trainers.batches import take
from paretoprune.trainers.machine import Machine
from paretoprune.trainers.models import build_model, load_weights

PUBLISHED = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}


def subject_of(name: str) -> Subject:
    """A network with published weights on CIFAR-10."""
    data = cifar_jpeg.whole()
    built = build_model(name, classes=data.classes, input_shape=data.input_shape, seed=0)
    load_weights(built, cifar_jpeg.weights_folder() / PUBLISHED[name])
    model, _ = working_copy(built)
    channel_map = trace_channels(model, tuple(data.input_shape))
    return Subject(model, channel_map, data, Machine(channels_last=True))


def plain_way(subject: Subject, curves: Curves, every: int) -> tuple[float, float]:
    """Seconds a probe from the start, and the largest difference of a rise, of each nth probe."""
    whole = np.ones(subject.channel_map.atoms, dtype=bool)
    split = take(subject.data.train, torch.arange(curves.settings.images))
    prober = Prober(subject, split, curves.settings, around=whole, replay=False)
    start, worst = time.perf_counter(), 0.0
    base = prober.losses(0, [whole])[0]
    for probe in range(0, len(curves.rise), every):
        group, removed = curves.group[probe], curves.removed[probe]
        keep = (subject.channel_map.group_of != group) | (curves.place > removed)
        rise = prober.losses(0, [keep])[0] - base
        worst = max(worst, abs(rise - float(curves.rise[probe])))
    return (time.perf_counter() - start) / prober.evaluations, worst


def main() -> None:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=list(PUBLISHED), default="resnet56")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curves.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    subject, rows = subject_of(asked.model), {}
    order = np.random.default_rng(0).random(subject.channel_map.atoms)
    print(
        f"{'method':8s} {'probes':>7s} {'shared s':>9s} {'plain s':>9s} {'ratio':>6s} difference"
    )
    for method in ("paper", "curve"):
        settings = CurveSettings(method=method, images=asked.images)
        start = time.perf_counter()
        curves = measure_curves(subject, order, settings)
        shared = time.perf_counter() - start
        alone, worst = plain_way(subject, curves, asked.every)
        plain = alone * (len(curves.rise) + 1)  # and the whole network's own loss
        rows[method] = {
            "settings": asdict(settings),
            "probes": len(curves.rise),
            "shared_seconds": shared,
            "plain_seconds": plain,
            "plain_measured_every": asked.every,
            "ratio": plain / shared,
            "largest_difference": worst,
        }
        seconds = f"{shared:9.1f} {plain:9.1f} {plain / shared:6.2f}"
        print(f"{method:8s} {len(curves.rise):7d} {seconds} {worst:11.1e}", flush=True)
    record = {"schema": 1, "model": asked.model, "torch": torch.__version__, "methods": rows}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
