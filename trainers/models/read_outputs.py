"""Determine once, before a run, which element of a network's output holds the class scores."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.output_forms import PROBABILITIES, SCORES, SIGMOID, SOFTMAX, WHOLE
from ...spaces.outputs import Outputs, element_of
from ..data.batches import fixed_subset
from ..data.splits import DataSplits, normalize_images
from ..runtime.device import device_of
from ..runtime.modes import eval_mode

PROBE_IMAGES = 32  # of train
NOISE_SCALES = (1.0, 1e4)  # scores grow with the standard deviation, probabilities do not
SUM_TOLERANCE = 1e-5  # of softmax rows in float32


def read_outputs(
    model: nn.Module, data: DataSplits, requested: str
) -> tuple[DataSplits, tuple[str, ...]]:
    """Return the data with a description of the network's outputs, and notes for the user.

    Args:
        model: The network.
        data: The data that it is trained on.
        requested: The value of `--outputs`: scores or probabilities.

    Raises:
        UserError: if no element or several could be the class scores, in eval or training mode, or
            if probabilities are requested and the network returns none.
    """
    zeros = torch.zeros((2, *data.input_shape), device=device_of(model))
    with torch.no_grad(), eval_mode(model):
        element = element_of(model(zeros), data.classes)
    check_training_outputs(model, zeros, data.classes)
    notes = [] if element.path == WHOLE else [f"using {element.path}"]
    if requested == PROBABILITIES:
        form = probability_form(torch.cat([element.tensor, outputs_on_images(model, data)]))
    else:
        form = SCORES
        found = detect_probabilities(model, data, element.tensor)
        if found is not None:
            notes.append(
                f"the outputs are probabilities ({found}), but cross-entropy expects unnormalised "
                f"scores: remove the {found}, or pass --outputs probabilities"
            )
    return replace(data, outputs=Outputs(form, element.path)), tuple(notes)


@torch.no_grad()
def check_training_outputs(model: nn.Module, images: Tensor, classes: int) -> None:
    """Raise UserError for a network whose class scores are ambiguous in training mode.

    A copy runs, since training mode changes the statistics of norms. A failed run is ignored: an
    inception network, for instance, needs larger images for its auxiliary head.
    """
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            output = copy.deepcopy(model).train()(images)
        except Exception:  # a user's forward may raise anything
            return
    element_of(output, classes, who="a network in training mode")


def probability_form(values: Tensor) -> str:
    """Softmax or sigmoid, for outputs that are probabilities according to the user."""
    if not in_unit_interval(values):
        raise UserError(
            "--outputs probabilities needs outputs in [0, 1], got "
            f"{float(values.min()):.4g} to {float(values.max()):.4g}; leave --outputs out"
        )
    return SOFTMAX if sums_to_one(values) else SIGMOID


def detect_probabilities(model: nn.Module, data: DataSplits, on_zeros: Tensor) -> str | None:
    """Softmax or sigmoid if the outputs on images and noise are probabilities; None for scores.

    The outputs on zeros are enough for most networks. Constant outputs, as of a zero-initialised
    head, and those of a final ReLU do not count as probabilities.
    """
    if on_zeros.isfinite().all() and not in_unit_interval(on_zeros):
        return None
    values = outputs_on_images(model, data)
    if not all(in_unit_interval(part) for part in (values, *outputs_on_noise(model, data))):
        return None
    if sums_to_one(values):
        return SOFTMAX
    constant = bool((values == values[0]).all())
    rectified = bool((values == 0).any()) and not bool((values == 1).any())
    return None if constant or rectified else SIGMOID


@torch.no_grad()
def outputs_on_images(model: nn.Module, data: DataSplits) -> Tensor:
    """The outputs on a few training images, float32 [n, C]."""
    images = fixed_subset(data.train, PROBE_IMAGES).images.to(device_of(model))
    with eval_mode(model):
        return element_of(model(normalize_images(images, data)), data.classes).tensor.float()


@torch.no_grad()
def outputs_on_noise(model: nn.Module, data: DataSplits) -> Iterator[Tensor]:
    """The outputs on noise of several scales."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((8, *data.input_shape), generator=generator).to(device_of(model))
    with eval_mode(model):
        for scale in NOISE_SCALES:
            yield element_of(model(noise * scale), data.classes).tensor.float()


def in_unit_interval(values: Tensor) -> bool:
    """True if all values are in [0, 1]; NaN is not."""
    return bool(((values >= 0) & (values <= 1)).all())


def sums_to_one(values: Tensor) -> bool:
    """True if every row sums to 1, as the rows of a softmax do."""
    return bool(((values.float().sum(1) - 1).abs() <= SUM_TOLERANCE).all())
