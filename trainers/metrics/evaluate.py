"""Evaluate a network on a split: top-1 and top-5 accuracy, and cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...spaces.output_forms import SIGMOID, SOFTMAX
from ...spaces.outputs import element_of
from ..data.batches import iterate_batches
from ..data.splits import DataSplits, Split
from ..runtime.device import (
    DeviceConfig,
    autocast,
    device_config_for,
    thread_limit,
    to_device,
    to_memory_format,
)
from ..runtime.modes import eval_mode


@dataclass(frozen=True, slots=True)
class ClassificationMetrics:
    """Accuracies in 0..1 and the mean cross-entropy; `top5` is None for up to five classes."""

    accuracy: float
    top5: float | None
    loss: float
    images: int


def logits_of(output: object, data: DataSplits) -> Tensor:
    """The unnormalised class scores [N, C] in the output of a network."""
    return as_scores(element_of(output, data.classes).tensor, data.outputs.form)


def as_scores(values: Tensor, form: str) -> Tensor:
    """Convert outputs to unnormalised scores: invert the softmax or the sigmoid.

    The scores of softmax rows p are log p, those of sigmoid values the log-odds log(p / (1 - p)).
    Both keep the order of the classes. Values are clamped to keep the logarithm finite.
    """
    if form == SOFTMAX:
        return values.float().clamp_min(torch.finfo(torch.float32).tiny).log()
    if form == SIGMOID:
        return torch.logit(values.float(), eps=torch.finfo(torch.float32).eps)
    return values


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    data: DataSplits,
    *,
    batch_size: int = 512,
    machine: DeviceConfig | None = None,
) -> ClassificationMetrics:
    """Evaluate the model in eval mode; its own mode is restored afterwards."""
    machine = machine or device_config_for(model, data.input_shape)
    to_device(model, machine)
    hits = hits5 = 0
    loss = 0.0
    with eval_mode(model), thread_limit(machine):
        for images, labels in iterate_batches(
            split, data, batch_size=batch_size, device=machine.device
        ):
            with autocast(machine, exact=data.outputs.exact):
                logits = element_of(model(to_memory_format(images, machine)), data.classes).tensor
            logits = logits.float()  # scores and probabilities rank the classes alike
            scores = as_scores(logits, data.outputs.form)
            loss += float(F.cross_entropy(scores, labels, reduction="sum"))
            hits += int((logits.argmax(1) == labels).sum())
            if data.classes > 5:
                best = logits.topk(5, dim=1).indices
                hits5 += int((best == labels[:, None]).any(1).sum())
    count = len(split)
    return ClassificationMetrics(
        hits / count, hits5 / count if data.classes > 5 else None, loss / count, count
    )
