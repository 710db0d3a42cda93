"""Seconds and memory of an ensemble against the number of atoms; predictions a second."""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import torch

from benchmarks.ensembles.surrogate import Surrogate, build_surrogate
from paretoprune.analysis.mask_ensembles import EnsembleSettings
from paretoprune.analysis.mask_ensembles.chunks import ChunkSampler, measure_part
from paretoprune.analysis.mask_ensembles.estimator import new_estimator
from paretoprune.analysis.mask_ensembles.masked_loss import MaskedLossProbe
from paretoprune.analysis.mask_ensembles.masks import draw_masks
from paretoprune.analysis.mask_ensembles.measure import build_ensemble
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.runtime.device import DeviceConfig, detect_device_config

SCALED = {
    "resnet20": (3, 32, 32),
    "resnet56": (3, 32, 32),
    "resnet110": (3, 32, 32),
    "torchvision:resnet50": (3, 64, 64),
}


def rates(surrogate: Surrogate, channel_map: ChannelMap) -> dict[str, int]:
    """Masks predicted a second of processor time."""
    rng = np.random.default_rng(0)
    masks = draw_masks(8_192, channel_map.group_of, keep=0.6, rng=rng)
    found = {}
    for name, predict in (("means", surrogate.predict_mean), ("errors", surrogate.predict)):
        predict(masks[:1024])
        start = time.process_time()
        predict(masks)
        found[f"{name}_a_second"] = round(len(masks) / (time.process_time() - start))
    return found


def scaling_cell(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What one chunk, one fit and a thousand predictions cost; random weights."""
    model, _ = make_working_copy(build_model(name, classes=10, input_shape=shape, seed=0).eval())
    channel_map = trace_channel_map(model, shape)
    images = torch.randint(0, 256, (512, *shape), dtype=torch.uint8)
    split = Split(images, torch.arange(512) % 10)
    data = DataSplits("made", split, split, None, 10, (0.5,) * 3, (0.25,) * 3, shape)
    machine: DeviceConfig = detect_device_config(model, shape)
    found: dict[str, Any] = {"atoms": channel_map.atoms}
    for per in ("sample", "gradient"):
        settings = EnsembleSettings(per=per, images=512, samples=2048)
        probe = MaskedLossProbe(model, channel_map, data, split, settings, machine)
        draws = ChunkSampler(settings, channel_map.group_of, len(split), 0)
        campaign = new_estimator(draws)
        campaign.taylor = np.random.default_rng(0).random(channel_map.atoms)
        campaign.add_results(measure_part(probe, draws, [0]))
        start = time.perf_counter()
        campaign.add_results(
            measure_part(probe, draws, [1, 2])
        )  # the first is held out: losses alone
        found[f"{per}_chunk_seconds"] = round((time.perf_counter() - start) / 2, 2)
        if per == "sample":
            tables = campaign.state_arrays()
            found["sums_bytes"] = sum(table.nbytes for table in tables.values())
            start = time.perf_counter()
            ensemble = build_ensemble(campaign, "", ())
            found["fit_seconds"] = round(time.perf_counter() - start, 2)
            found |= rates(build_surrogate(ensemble, channel_map), channel_map)
    found["peak_bytes_so_far"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found
