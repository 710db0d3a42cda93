"""Settings of a training run, the optimizer and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...spaces.errors import UserError


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a network is trained: SGD with a cosine schedule. The defaults suit a short fine-tune.

    Args:
        epochs: Passes over the training split; fractions are allowed.
        learning_rate: The peak rate, reached after the warm-up.
        warmup: The share of the run in which the rate rises linearly.
        clip: The largest norm of the gradient; None: no clipping.
        distill: The weight of the teacher's term in the loss; 0: labels only.
        temperature: The softmax temperature of the teacher's term.
        ema: The decay of the exponential moving average of the weights; None: no average.
        max_seconds: Training stops after so many seconds; None: no limit.
        reports: Epochs (fractions allowed) with a progress report, besides each epoch's end.
    """

    epochs: float = 1.0
    learning_rate: float = 0.02
    batch_size: int = 128
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    warmup: float = 0.05
    label_smoothing: float = 0.0
    clip: float | None = None
    distill: float = 0.7
    temperature: float = 2.0
    ema: float | None = None
    max_seconds: float | None = None
    reports: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rules = {
            "epochs": (self.epochs > 0, "> 0"),
            "learning_rate": (self.learning_rate > 0, "> 0"),
            "batch_size": (self.batch_size >= 1, ">= 1"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "warmup": (0 <= self.warmup < 1, "in [0, 1), a share of the run"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "distill": (0 <= self.distill <= 1, "in [0, 1]"),
            "temperature": (self.temperature > 0, "> 0"),
            "ema": (self.ema is None or 0 < self.ema < 1, "in (0, 1) or None"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise UserError(f"{name} must be {rule}, got {getattr(self, name)!r}; change it")


def learning_rate_at(tuning: TrainingSettings, step: int, total: int) -> float:
    """The learning rate of step 0..total-1: a linear warm-up, then a half cosine to 0."""
    warm = round(tuning.warmup * total)
    if step < warm:
        return tuning.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    return tuning.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True, slots=True, eq=False)
class CustomLearningRate:
    """A parameter whose learning rate is a function of the completed share of the run (0..1).

    It has no weight decay, and gradient clipping ignores it.
    """

    parameter: nn.Parameter
    rate: Callable[[float], float]


def build_optimizer(
    model: nn.Module, tuning: TrainingSettings, own: Sequence[CustomLearningRate] = ()
) -> torch.optim.Optimizer:
    """Fused SGD. Vectors and scalars (norms and biases) have no weight decay."""
    apart = {id(rated.parameter) for rated in own}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": tuning.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if not groups:
        raise UserError("a network must have parameters to train, got none; unfreeze some")
    groups += [{"params": [o.parameter], "weight_decay": 0.0, "own_rate": o.rate} for o in own]
    return torch.optim.SGD(
        groups,
        lr=tuning.learning_rate,
        momentum=tuning.momentum,
        nesterov=tuning.nesterov and tuning.momentum > 0,
        fused=True,
    )
