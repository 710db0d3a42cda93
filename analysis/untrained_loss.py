"""Loss of pruned networks before any training, and a Gaussian process that predicts it.

    loss(mask) = min over t of the mean cross-entropy of t * logits(network pruned to the mask)

The loss is measured on calibration images. Batch norms use the statistics of each batch, which
approximates recalibration. One mask takes a fraction of a second. A Gaussian process on the share
of its score that each group loses then predicts the loss of thousands of other masks.

The logits are scaled by the best temperature because training corrects their scale first. Without
scaling, a network with constant output, at log(classes), beats an overconfident network that
separates classes well; below 0.3 of the FLOPs most networks are of these two kinds.
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
GroupOfAtom = NDArray[np.int32]  # [A]

LOSS_IMAGES, LOSS_BATCH_SIZE = 512, 256
LOGIT_SCALES = (0.0, *np.geomspace(0.01, 2, 48))  # inverse temperatures, in steps of 12 %
MIN_MASKS_TO_FIT = 8  # the predictor needs at least so many measured masks
NOISE_LEVEL_AND_BOUNDS = (0.01, (1e-5, 0.2))  # share of the variance: initial value, bounds
OPTIMIZER_RESTARTS = 2  # fits of the kernel from random parameters


def evaluate_untrained(
    masks: Masks, context: MeasurementContext, on_progress: OnMeasurementProgress
) -> Values:
    """Return the untrained loss of each mask [n, A]: [n]; NaN where it is not finite."""
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
        pruned = prune_network(context.model, context.channel_map, mask)
        losses[index] = untrained_loss_of(pruned, split, context, machine)
        on_progress("masks of policies", index + 1, len(masks))
    if context.folder:
        save_arrays(key, {"losses": losses}, context.folder)
    return losses


def untrained_loss_of(
    pruned: nn.Module, split: Split, context: MeasurementContext, machine: DeviceConfig
) -> float:
    """Mean cross-entropy of a pruned network at the best temperature."""
    device, found = device_of(context.model), []
    pruned.to(device)
    with torch.no_grad(), eval_mode(pruned), batch_norm_on_batches(pruned), thread_limit(machine):
        for start in range(0, len(split), LOSS_BATCH_SIZE):
            images = normalize_images(
                split.images[start : start + LOSS_BATCH_SIZE].to(device), context.data
            )
            with autocast(machine, exact=context.data.outputs.exact):
                output = pruned(to_memory_format(images, machine))
            found.append(logits_of(output, context.data).float().cpu())
    return best_temperature_loss(torch.cat(found), split.labels.cpu())


def best_temperature_loss(logits: Tensor, labels: Tensor) -> float:
    """Lowest mean cross-entropy over all logit scales; NaN if a logit is not finite.

    It is at most log(classes), the loss at scale 0.
    """
    if not logits.isfinite().all():
        return math.nan

    def loss(index: int) -> float:
        return float(functional.cross_entropy(logits * float(LOGIT_SCALES[index]), labels))

    def rises(
        index: int,
    ) -> bool:  # the loss is convex in the scale, so bisection finds its minimum
        return loss(index) <= loss(index + 1)

    return loss(bisect_left(range(len(LOGIT_SCALES) - 1), True, key=rises))


@dataclass(frozen=True, slots=True, eq=False)
class UntrainedLossPredictor:
    """Predicts the untrained loss of masks from the share of its score that each group loses."""

    group_of: GroupOfAtom
    worth: Values  # [A], each atom's share of its group's score
    process: Any  # a fitted scikit-learn regressor

    def predict(self, masks: Masks) -> Values:
        """Predicted losses of masks [n, A]: [n]."""
        return np.asarray(
            self.process.predict(removed_worth_by_group(masks, self.worth, self.group_of))
        )


def removed_worth_by_group(masks: Masks, worth: Values, group_of: GroupOfAtom) -> Values:
    """Share of each group's score that masks [n, A] remove: [n, G]."""
    members = np.zeros((len(group_of), int(group_of.max()) + 1))
    members[np.arange(len(group_of)), group_of] = worth
    return np.asarray(~masks @ members)


def fit_untrained_loss_predictor(
    masks: Masks, losses: Values, worth: Values, channel_map: ChannelMap
) -> UntrainedLossPredictor | None:
    """Fit the predictor to measured masks; return None if there are too few.

    Args:
        masks: bool [n, A].
        losses: Their untrained losses [n]; masks with NaN are left out.
        worth: Any score >= 0 [A].
        channel_map: The network's channel map.
    """
    finite = np.isfinite(losses)
    if finite.sum() < MIN_MASKS_TO_FIT:
        return None
    group_of = channel_map.group_of
    totals = np.bincount(group_of, weights=worth)[group_of]
    sizes = np.bincount(group_of)[group_of]
    shares = np.where(totals > 0, worth / np.where(totals > 0, totals, 1), 1 / sizes)
    process = build_gaussian_process(int(group_of.max()) + 1)
    with warnings.catch_warnings(action="ignore"):  # a kernel parameter at its bound
        process.fit(removed_worth_by_group(masks[finite], shares, group_of), losses[finite])
    return UntrainedLossPredictor(group_of, shares, process)


def build_gaussian_process(groups: int) -> Any:
    """An unfitted Gaussian process on standardized features; `fit` also fits its kernel."""
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
