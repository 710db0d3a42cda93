"""Scores of one network on one set of images, each measured once and cached in a folder.

Each score has its own file, named by a hash of all its inputs. Only scores without a file are
measured, for example a new score from a plugin.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap, channel_map_digest
from ...spaces.policy.layer_scores import LayerScores
from ...spaces.policy.measurements import (
    SCHEMA,
    Measurements,
    load_arrays,
    save_arrays,
    scores_from_arrays,
    scores_to_arrays,
)
from ...spaces.policy.policy import check_score
from ...trainers.data.batches import fixed_subset
from ...trainers.data.splits import DataSplits, Split, normalize_images
from ...trainers.metrics.evaluate import logits_of
from ...trainers.runtime.device import device_config_for, thread_limit, to_device, to_memory_format
from ...trainers.runtime.modes import eval_mode
from ...trainers.training.checkpoint import weights_digest
from .calibration_pass import OnImagesDone, batch_size_for, run_calibration_pass
from .registry import BatchScore, Network, ScoreFunction, all_scores, score_function
from .validation import call_score

CALIBRATION_IMAGES = 2048


def load_or_measure_scores(
    model: nn.Module,
    channel_map: ChannelMap,
    data: DataSplits,
    *,
    folder: Path | None,
    seed: int,
    names: Sequence[str] | None = None,
    images: int = CALIBRATION_IMAGES,
    on_progress: OnImagesDone | None = None,
) -> Measurements:
    """Return scores, read from `folder` or measured and saved there.

    Args:
        model: A trained network.
        channel_map: Its channel map.
        data: The data; calibration images come from the train split.
        folder: The cache; None measures without saving.
        seed: Seed of scores that use randomness.
        names: The scores to return. Default: all registered scores.
        images: Number of calibration images.
        on_progress: Receives the number of images done and the total.
    """
    methods = select_scores(names)
    split = calibration_split(data, images)
    base = measurement_key(model, channel_map, data, split, seed)
    keys = {name: score_key(base, name, method) for name, method in methods.items()}
    known = load_scores(keys, folder) if folder else {}
    network = Network(model, channel_map, data, split, np.random.default_rng(seed))
    missing = {name: method for name, method in methods.items() if name not in known}
    found, counts = measure_scores(network, missing, seed=seed, on_progress=on_progress)
    if folder:
        for name, parts in found.items():
            save_arrays(keys[name], scores_to_arrays({name: parts}), folder)
    scores = {name: (known | found)[name] for name in methods}
    return Measurements(digest_texts(keys.values()), scores, counts=counts)


def select_scores(names: Sequence[str] | None) -> dict[str, ScoreFunction | BatchScore]:
    """The registered scores with these names, or all, sorted by name."""
    known = all_scores()
    for name in names or ():
        check_score(name, known)
    return {name: method for name, method in known.items() if names is None or name in names}


def measure_scores(
    network: Network,
    methods: Mapping[str, ScoreFunction | BatchScore],
    *,
    seed: int,
    on_progress: OnImagesDone | None = None,
) -> tuple[dict[str, LayerScores], dict[str, int]]:
    """Measure scores; batch scores share one pass. Returns scores and counts by name."""
    found = {}
    for name, method in methods.items():
        if not isinstance(method, BatchScore):
            own = replace(network, rng=np.random.default_rng([seed, *name.encode()]))
            found[name] = call_score(name, method, own, network.channel_map.atoms)
    of_data = {name: m for name, m in methods.items() if isinstance(m, BatchScore)}
    passed = run_calibration_pass(network, of_data, on_progress=on_progress)
    return found | passed.scores, passed.counts


def load_scores(keys: Mapping[str, str], folder: Path) -> dict[str, LayerScores]:
    """Read the scores whose complete files are in the folder."""
    found: dict[str, LayerScores] = {}
    for key in keys.values():
        found |= scores_from_arrays(load_arrays(key, folder) or {})
    return found


def calibration_split(data: DataSplits, images: int = CALIBRATION_IMAGES) -> Split:
    """A fixed random subset of the train split, the same for every score."""
    if images < 1:
        raise UserError(
            f"calibration images must be at least 1, got {images}; the default is 2048"
        )
    return fixed_subset(data.train, images)


def measurement_key(
    model: nn.Module, channel_map: ChannelMap, data: DataSplits, split: Split, seed: int
) -> str:
    """Hash of everything that all scores depend on; any difference is a cache miss.

    The model is first moved to the device and memory format of the measurements. In another
    memory format the last bits of the logits, and so the key, could differ.
    """
    digest = hashlib.sha256()
    shape = tuple(data.input_shape)
    machine = device_config_for(model, shape)
    settings = [
        SCHEMA, seed, [batch_size_for(shape), asdict(machine)], torch.__version__,
        platform.machine(),
    ]  # fmt: skip
    digest.update(json.dumps(settings).encode())
    digest.update(weights_digest(model).encode())
    digest.update(channel_map_digest(channel_map).encode())
    digest.update(repr((data.mean, data.std, data.classes)).encode())
    digest.update(np.ascontiguousarray(split.images.numpy()).tobytes())
    digest.update(np.ascontiguousarray(split.labels.numpy()).tobytes())
    images = to_memory_format(normalize_images(split.images[:8].to(machine.device), data), machine)
    with torch.no_grad(), eval_mode(model), thread_limit(machine):
        logits = logits_of(to_device(model, machine)(images), data)
    digest.update(logits.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def score_key(base: str, name: str, method: ScoreFunction | BatchScore) -> str:
    """The cache key of one score: the shared key, its name and its source code."""
    return digest_texts((base, name, source_code(score_function(method))))


def digest_texts(texts: Iterable[str]) -> str:
    """Short hash of several texts."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:32]


def source_code(function: object) -> str:
    """The source of the function's module, so that an edited plugin is measured again."""
    for candidate in (inspect.getmodule(function), function):
        try:
            return inspect.getsource(candidate)  # type: ignore[arg-type]
        except (OSError, TypeError):
            continue
    return repr(function)
