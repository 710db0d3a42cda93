"""Measure the evidence, once: every registered score of one network on one set of images."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..spaces.channels import ChannelMap, map_digest
from ..spaces.errors import UserError
from ..spaces.evidence import (
    SCHEMA,
    Evidence,
    load_tables,
    save_tables,
    scores_from_tables,
    scores_to_tables,
)
from ..spaces.parts import Parts, Scores, whole
from ..trainers.batches import take
from ..trainers.split import Data, Split, prepare
from .scores.registry import Network, Score, all_scores

CALIBRATION_IMAGES = 1024


def measure_evidence(
    model: nn.Module, channel_map: ChannelMap, data: Data, *, folder: Path | None, seed: int
) -> Evidence:
    """All scores; read from `folder` if the very same were measured before."""
    split = calibration_split(data)
    key = evidence_key(model, channel_map, data, split, seed)
    known = load_tables(key, folder) if folder else None
    if known is not None:
        return Evidence(key, scores_from_tables(known))
    scores = {}
    for name, function in all_scores().items():
        rng = np.random.default_rng([seed, *name.encode()])
        network = Network(model, channel_map, data, split, rng)
        scores[name] = check_scores(name, run_score(name, function, network), channel_map.atoms)
    if folder:
        save_tables(key, scores_to_tables(scores), folder)
    return Evidence(key, scores)


def run_score(name: str, function: Score, network: Network) -> Scores | Parts:
    """Compute one score; an exception inside it (a plugin's, say) becomes one line."""
    try:
        found = function(network)
        return found if isinstance(found, Parts) else np.asarray(found, dtype=np.float64)
    except Exception as error:
        raise UserError(
            f"score {name!r} must run on this network, got {type(error).__name__}: {error}; "
            "mend the score or leave it out"
        ) from error


def check_scores(name: str, found: Scores | Parts, atoms: int) -> Parts:
    """Refuse a score that does not give one finite number an atom, or a part of one."""
    if not isinstance(found, Parts) and found.shape != (atoms,):
        raise UserError(
            f"score {name!r} must return one number an atom, ({atoms},), got {found.shape}; "
            "sum over the layers of an atom, as network.per_atom does"
        )
    parts = found if isinstance(found, Parts) else whole(found)
    bad = int((~np.isfinite(parts.value)).sum())
    if bad:
        raise UserError(
            f"score {name!r} must be finite, got {bad} values that "
            "are not; check the network's weights and the calibration images"
        )
    return parts


def calibration_split(data: Data) -> Split:
    """The first images of train; train is in a shuffled, fixed order."""
    count = min(CALIBRATION_IMAGES, len(data.train))
    return take(data.train, torch.arange(count))


def evidence_key(
    model: nn.Module, channel_map: ChannelMap, data: Data, split: Split, seed: int
) -> str:
    """A hash over everything that the numbers depend on; a doubtful case is a miss."""
    digest = hashlib.sha256()
    device = next(model.parameters()).device.type
    methods = {name: source_of(function) for name, function in all_scores().items()}
    settings = [SCHEMA, methods, seed, device, torch.__version__, platform.machine()]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    digest.update(map_digest(channel_map).encode())
    digest.update(repr((data.mean, data.std, data.classes)).encode())
    digest.update(np.ascontiguousarray(split.images.numpy()).tobytes())
    digest.update(np.ascontiguousarray(split.labels.numpy()).tobytes())
    with torch.no_grad():
        logits = model.eval()(prepare(split.images[:8], data))
    digest.update(logits.float().numpy().tobytes())
    return digest.hexdigest()[:32]


def source_of(function: object) -> str:
    """The score's own source, so that an edited plugin is measured again."""
    try:
        return inspect.getsource(function)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return repr(function)
