"""What a network returns, examined once before work starts: which element, in which form."""

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

IMAGES = 32  # of train
NOISE = (1.0, 1e4)  # standard deviations: scores grow with them, probabilities stay in [0, 1]
SUM_TOLERANCE = 1e-5  # of softmax rows in float32


def read_outputs(
    model: nn.Module, data: DataSplits, asked: str
) -> tuple[DataSplits, tuple[str, ...]]:
    """The data with what the network returns, and notes for the user.

    `asked` is `--outputs`: scores or probabilities.

    Raises:
        UserError: if no element or several hold the class scores, in eval or in training mode, or
            if probabilities were asked for and the network returns none.
    """
    zeros = torch.zeros((2, *data.input_shape), device=device_of(model))
    with torch.no_grad(), eval_mode(model):
        element = element_of(model(zeros), data.classes)
    check_training(model, zeros, data.classes)
    notes = [] if element.path == WHOLE else [f"using {element.path}"]
    if asked == PROBABILITIES:
        form = form_asked(torch.cat([element.tensor, on_images(model, data)]))
    else:
        form = SCORES
        found = form_found(model, data, element.tensor)
        if found is not None:
            notes.append(
                f"the outputs are probabilities ({found}), but cross-entropy expects unnormalised "
                f"scores: remove the {found}, or pass --outputs probabilities"
            )
    return replace(data, outputs=Outputs(form, element.path)), tuple(notes)


@torch.no_grad()
def check_training(model: nn.Module, images: Tensor, classes: int) -> None:
    """Refuse a network whose class scores cannot be told apart in training mode.

    A copy runs, since training mode changes the statistics of norms. A failure of the run is none
    of the outputs: an inception network, for instance, needs larger images for its second head.
    """
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            output = copy.deepcopy(model).train()(images)
        except Exception:  # whatever a user's forward raises
            return
    element_of(output, classes, who="a network in training mode")


def form_asked(values: Tensor) -> str:
    """Softmax or sigmoid, where the user says that the network returns probabilities."""
    if not is_between(values):
        raise UserError(
            "--outputs probabilities needs outputs in [0, 1], got "
            f"{float(values.min()):.4g} to {float(values.max()):.4g}; leave --outputs out"
        )
    return SOFTMAX if sums_to_one(values) else SIGMOID


def form_found(model: nn.Module, data: DataSplits, on_zeros: Tensor) -> str | None:
    """Softmax or sigmoid, where images and noise show probabilities; None for scores.

    Most networks are told by their outputs for zeros, without an image. Outputs that are the same
    for all images, as of a head of zeros, and those of a last ReLU are no sign of probabilities.
    """
    if on_zeros.isfinite().all() and not is_between(on_zeros):
        return None
    values = on_images(model, data)
    if not all(is_between(part) for part in (values, *on_noise(model, data))):
        return None
    if sums_to_one(values):
        return SOFTMAX
    constant = bool((values == values[0]).all())
    rectified = bool((values == 0).any()) and not bool((values == 1).any())
    return None if constant or rectified else SIGMOID


@torch.no_grad()
def on_images(model: nn.Module, data: DataSplits) -> Tensor:
    """The outputs for some images of train [n, C], in float32."""
    images = fixed_subset(data.train, IMAGES).images.to(device_of(model))
    with eval_mode(model):
        return element_of(model(normalize_images(images, data)), data.classes).tensor.float()


@torch.no_grad()
def on_noise(model: nn.Module, data: DataSplits) -> Iterator[Tensor]:
    """The outputs for noise of several scales."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((8, *data.input_shape), generator=generator).to(device_of(model))
    with eval_mode(model):
        for scale in NOISE:
            yield element_of(model(noise * scale), data.classes).tensor.float()


def is_between(values: Tensor) -> bool:
    """True if all are in [0, 1]; NaN is not."""
    return bool(((values >= 0) & (values <= 1)).all())


def sums_to_one(values: Tensor) -> bool:
    """True if every row does, as a softmax's."""
    return bool(((values.float().sum(1) - 1).abs() <= SUM_TOLERANCE).all())
