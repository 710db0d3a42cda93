"""Rehearsal: what cut networks are worth before any training, and foretelling it for others.

A mask is rehearsed by cutting the network and looking at its loss on calibration images, its batch
norms on each batch's own statistics: what recalibration will make of them. That takes a fraction
of a second. A Gaussian process over what each group loses then foretells thousands of others.

The loss is that of the logits at the temperature that suits them best, since their scale is the
first thing that training repairs. Without it a network that tells nothing apart, at log(classes),
beats one that tells much and is too sure of it: below 0.3 of the FLOPs most are of these kinds.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..spaces.graph.channels import ChannelMap
from ..spaces.policy.measurements import load_arrays, save_arrays
from ..trainers.data.splits import Split, normalize_images
from ..trainers.metrics.evaluate import logits_of
from ..trainers.pruning.surgery import prune_network
from ..trainers.runtime.device import (
    DeviceConfig,
    autocast,
    device_config_for,
    device_of,
    thread_limit,
    to_memory_format,
)
from ..trainers.runtime.modes import eval_mode
from .mask_ensembles.masked_loss import batch_norm_on_batches
from .measure import MeasurementContext, OnMeasurementProgress
from .scores.measure import calibration_split, digest_texts, measurement_key

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]
GroupOfAtom = NDArray[np.int32]  # of each atom

LOSS_IMAGES, LOSS_BATCH_SIZE = 512, 256
LOGIT_SCALES = (
    0.0,
    *np.geomspace(0.01, 2, 48),
)  # of the logits, each an eighth above the one before
MIN_MASKS_TO_FIT = 8  # rehearsed masks, below which nothing is foretold
NOISE_LEVEL_AND_BOUNDS = (
    0.01,
    (1e-5, 0.2),
)  # of the variance: its first guess, and what it may be fitted to
OPTIMIZER_RESTARTS = 2  # of the fit of the kernel, from random parameters


def evaluate_untrained(
    masks: Masks, context: MeasurementContext, on_progress: OnMeasurementProgress
) -> Values:
    """The loss of the network cut to each mask [n, A]: [n]; NaN where it is none."""
    split = calibration_split(context.data, LOSS_IMAGES)
    base = measurement_key(context.model, context.channel_map, context.data, split, context.seed)
    key = digest_texts(
        (base, "rehearsal, tempered", hashlib.sha256(np.packbits(masks).tobytes()).hexdigest())
    )
    known = load_arrays(key, context.folder) if context.folder else None
    if known is not None:
        return known["losses"].astype(np.float64)
    machine = device_config_for(context.model, tuple(context.data.input_shape))
    losses = np.empty(len(masks))
    for index, mask in enumerate(masks):
        small = prune_network(context.model, context.channel_map, mask)
        losses[index] = untrained_loss_of(small, split, context, machine)
        on_progress("masks of policies", index + 1, len(masks))
    if context.folder:
        save_arrays(key, {"losses": losses}, context.folder)
    return losses


def untrained_loss_of(
    small: nn.Module, split: Split, context: MeasurementContext, machine: DeviceConfig
) -> float:
    """The mean cross entropy, at the temperature that makes it least."""
    device, found = device_of(context.model), []
    small.to(device)
    with torch.no_grad(), eval_mode(small), batch_norm_on_batches(small), thread_limit(machine):
        for start in range(0, len(split), LOSS_BATCH_SIZE):
            images = normalize_images(
                split.images[start : start + LOSS_BATCH_SIZE].to(device), context.data
            )
            with autocast(machine, exact=context.data.outputs.exact):
                output = small(to_memory_format(images, machine))
            found.append(logits_of(output, context.data).float().cpu())
    return best_temperature_loss(torch.cat(found), split.labels.cpu())


def best_temperature_loss(logits: Tensor, labels: Tensor) -> float:
    """The least mean cross entropy of the logits times any factor; NaN where they are no numbers.

    At most that of factor 0, log(classes), which is what a network that tells nothing apart has.
    """
    if not logits.isfinite().all():
        return math.nan

    def loss(index: int) -> float:
        return float(functional.cross_entropy(logits * float(LOGIT_SCALES[index]), labels))

    def rises(index: int) -> bool:  # it is convex in the factor: once it does, it goes on
        return loss(index) <= loss(index + 1)

    return loss(bisect_left(range(len(LOGIT_SCALES) - 1), True, key=rises))


@dataclass(frozen=True, slots=True, eq=False)
class UntrainedLossPredictor:
    """The loss that masks will have in a rehearsal, by what each group loses of its worth."""

    group_of: GroupOfAtom
    worth: Values  # [A], shares of the group's
    process: Any  # fitted

    def predict(self, masks: Masks) -> Values:
        """Foretold losses of masks [n, A]: [n]."""
        return np.asarray(
            self.process.predict(removed_worth_by_group(masks, self.worth, self.group_of))
        )


def removed_worth_by_group(masks: Masks, worth: Values, group_of: GroupOfAtom) -> Values:
    """The share of each group's worth that masks [n, A] remove: [n, G]."""
    members = np.zeros((len(group_of), int(group_of.max()) + 1))
    members[np.arange(len(group_of)), group_of] = worth
    return np.asarray(~masks @ members)


def fit_untrained_loss_predictor(
    masks: Masks, losses: Values, worth: Values, channel_map: ChannelMap
) -> UntrainedLossPredictor | None:
    """Fitted to rehearsed masks, `worth` [A] being any score >= 0; None if they are too few."""
    finite = np.isfinite(losses)
    if finite.sum() < MIN_MASKS_TO_FIT:
        return None
    group_of = channel_map.group_of
    totals = np.bincount(group_of, weights=worth)[group_of]
    sizes = np.bincount(group_of)[group_of]
    shares = np.where(totals > 0, worth / np.where(totals > 0, totals, 1), 1 / sizes)
    process = build_gaussian_process(int(group_of.max()) + 1)
    with warnings.catch_warnings(action="ignore"):  # of a kernel's parameter at its bound
        process.fit(removed_worth_by_group(masks[finite], shares, group_of), losses[finite])
    return UntrainedLossPredictor(group_of, shares, process)


def build_gaussian_process(groups: int) -> Any:
    """Not fitted yet. Its kernel's parameters are fitted along."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kernel = ConstantKernel() * RBF(2 * np.sqrt(groups), (0.1, 1e3)) + WhiteKernel(
        *NOISE_LEVEL_AND_BOUNDS
    )
    process = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=OPTIMIZER_RESTARTS, random_state=0
    )
    return make_pipeline(StandardScaler(), process)
