"""Measure the evidence, once: the scores of one network on one set of images.

Each score lies in a file of its own, named by a hash over all that it was computed from: what is
there is read, what is not (a plugin's new score, say) is measured.
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
    """The named scores (default: all); read from `folder` those that were measured before."""
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
    """The scores with these names, or all, in order of name."""
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
    """Scores by name, and what they cost: those of data share one pass over the images."""
    found = {}
    for name, method in methods.items():
        if not isinstance(method, BatchScore):
            own = replace(network, rng=np.random.default_rng([seed, *name.encode()]))
            found[name] = call_score(name, method, own, network.channel_map.atoms)
    of_data = {name: m for name, m in methods.items() if isinstance(m, BatchScore)}
    passed = run_calibration_pass(network, of_data, on_progress=on_progress)
    return found | passed.scores, passed.counts


def load_scores(keys: Mapping[str, str], folder: Path) -> dict[str, LayerScores]:
    """The scores that lie whole in the folder under their keys."""
    found: dict[str, LayerScores] = {}
    for key in keys.values():
        found |= scores_from_arrays(load_arrays(key, folder) or {})
    return found


def calibration_split(data: DataSplits, images: int = CALIBRATION_IMAGES) -> Split:
    """Random images of train, the same for every score."""
    if images < 1:
        raise UserError(f"calibration images must be at least 1, got {images}; 2048 is usual")
    return fixed_subset(data.train, images)


def measurement_key(
    model: nn.Module, channel_map: ChannelMap, data: DataSplits, split: Split, seed: int
) -> str:
    """A hash over everything that all scores depend on; a doubtful case is a miss.

    The model is placed first, as all that measures places it: in another layout its last bits,
    and so the key, would hang on what was measured before.
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
    """The key of one score: of what all depend on, its name and its own source."""
    return digest_texts((base, name, source_code(score_function(method))))


def digest_texts(texts: Iterable[str]) -> str:
    """One short hash of several texts."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:32]


def source_code(function: object) -> str:
    """The source of the score's module, so that an edited plugin is measured again."""
    for thing in (inspect.getmodule(function), function):
        try:
            return inspect.getsource(thing)  # type: ignore[arg-type]
        except (OSError, TypeError):
            continue
    return repr(function)
