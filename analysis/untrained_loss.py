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
from ..spaces.policy.measurements import load_tables, save_tables
from ..trainers.data.types import Split, prepare
from ..trainers.metrics.evaluate import logits_of
from ..trainers.pruning.surgery import cut
from ..trainers.runtime.device import Machine, device_of, lay, machine_for, precision, threads
from ..trainers.runtime.modes import evaluating
from .mask_ensembles.masked_loss import batch_statistics
from .measure import Measuring, OnProgress
from .scores.measure import calibration_split, digest_of, evidence_key

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]
Groups = NDArray[np.int32]  # of each atom

IMAGES, BATCH = 512, 256
FACTORS = (0.0, *np.geomspace(0.01, 2, 48))  # of the logits, each an eighth above the one before
LEAST = 8  # rehearsed masks, below which nothing is foretold
NOISE = (0.01, (1e-5, 0.2))  # of the variance: its first guess, and what it may be fitted to
RESTARTS = 2  # of the fit of the kernel, from random parameters


def rehearse(masks: Masks, on: Measuring, tell: OnProgress) -> Values:
    """The loss of the network cut to each mask [n, A]: [n]; NaN where it is none."""
    split = calibration_split(on.data, IMAGES)
    base = evidence_key(on.model, on.channel_map, on.data, split, on.seed)
    key = digest_of(
        (base, "rehearsal, tempered", hashlib.sha256(np.packbits(masks).tobytes()).hexdigest())
    )
    known = load_tables(key, on.folder) if on.folder else None
    if known is not None:
        return known["losses"].astype(np.float64)
    machine = machine_for(on.model, tuple(on.data.input_shape))
    losses = np.empty(len(masks))
    for index, mask in enumerate(masks):
        small = cut(on.model, on.channel_map, mask)
        losses[index] = loss_of(small, split, on, machine)
        tell("masks of policies", index + 1, len(masks))
    if on.folder:
        save_tables(key, {"losses": losses}, on.folder)
    return losses


def loss_of(small: nn.Module, split: Split, on: Measuring, machine: Machine) -> float:
    """The mean cross entropy, at the temperature that makes it least."""
    device, found = device_of(on.model), []
    small.to(device)
    with torch.no_grad(), evaluating(small), batch_statistics(small), threads(machine):
        for start in range(0, len(split), BATCH):
            images = prepare(split.images[start : start + BATCH].to(device), on.data)
            with precision(machine, exact=on.data.outputs.exact):
                output = small(lay(images, machine))
            found.append(logits_of(output, on.data).float().cpu())
    return tempered(torch.cat(found), split.labels.cpu())


def tempered(logits: Tensor, labels: Tensor) -> float:
    """The least mean cross entropy of the logits times any factor; NaN where they are no numbers.

    At most that of factor 0, log(classes), which is what a network that tells nothing apart has.
    """
    if not logits.isfinite().all():
        return math.nan

    def loss(index: int) -> float:
        return float(functional.cross_entropy(logits * float(FACTORS[index]), labels))

    def rises(index: int) -> bool:  # it is convex in the factor: once it does, it goes on
        return loss(index) <= loss(index + 1)

    return loss(bisect_left(range(len(FACTORS) - 1), True, key=rises))


@dataclass(frozen=True, slots=True, eq=False)
class Foretelling:
    """The loss that masks will have in a rehearsal, by what each group loses of its worth."""

    group_of: Groups
    worth: Values  # [A], shares of the group's
    process: Any  # fitted

    def means(self, masks: Masks) -> Values:
        """Foretold losses of masks [n, A]: [n]."""
        return np.asarray(self.process.predict(lost(masks, self.worth, self.group_of)))


def lost(masks: Masks, worth: Values, group_of: Groups) -> Values:
    """The share of each group's worth that masks [n, A] remove: [n, G]."""
    members = np.zeros((len(group_of), int(group_of.max()) + 1))
    members[np.arange(len(group_of)), group_of] = worth
    return np.asarray(~masks @ members)


def foretelling(
    masks: Masks, losses: Values, worth: Values, channel_map: ChannelMap
) -> Foretelling | None:
    """Fitted to rehearsed masks, `worth` [A] being any score >= 0; None if they are too few."""
    finite = np.isfinite(losses)
    if finite.sum() < LEAST:
        return None
    group_of = channel_map.group_of
    totals = np.bincount(group_of, weights=worth)[group_of]
    sizes = np.bincount(group_of)[group_of]
    shares = np.where(totals > 0, worth / np.where(totals > 0, totals, 1), 1 / sizes)
    process = gaussian_process(int(group_of.max()) + 1)
    with warnings.catch_warnings(action="ignore"):  # of a kernel's parameter at its bound
        process.fit(lost(masks[finite], shares, group_of), losses[finite])
    return Foretelling(group_of, shares, process)


def gaussian_process(groups: int) -> Any:
    """Not fitted yet. Its kernel's parameters are fitted along."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kernel = ConstantKernel() * RBF(2 * np.sqrt(groups), (0.1, 1e3)) + WhiteKernel(*NOISE)
    process = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=RESTARTS, random_state=0
    )
    return make_pipeline(StandardScaler(), process)
