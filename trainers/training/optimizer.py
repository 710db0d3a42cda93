"""The settings of a training run, its optimiser and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ...spaces.errors import UserError


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a network is trained. The defaults are the brief fine-tune after a cut.

    `distill` is the weight of the teacher's part of the loss (0: labels only); `reports` are the
    epochs, fractions allowed, after which progress is reported besides the end of each epoch.
    """

    epochs: float = 1.0
    learning_rate: float = 0.02
    batch_size: int = 128
    optimiser: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step"] = "cosine"
    warmup: float = 0.05
    steps_at: tuple[float, ...] = (0.5, 0.75)
    step_factor: float = 0.1
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
            "optimiser": (self.optimiser in ("sgd", "adamw"), "'sgd' or 'adamw'"),
            "schedule": (self.schedule in ("cosine", "step"), "'cosine' or 'step'"),
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
    """The rate of step 0..total-1: linear warm-up, then half a cosine to 0, or falling steps."""
    warm = round(tuning.warmup * total)
    if step < warm:
        return tuning.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    if tuning.schedule == "cosine":
        return tuning.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    passed = sum(step / total >= at for at in tuning.steps_at)
    return tuning.learning_rate * float(tuning.step_factor**passed)


@dataclass(frozen=True, slots=True, eq=False)
class CustomLearningRate:
    """A parameter with a learning rate of its own, by the share of the run that is done (0..1).

    It does not decay, and a clip of the gradient's norm leaves it out.
    """

    parameter: nn.Parameter
    rate: Callable[[float], float]


def build_optimizer(
    model: nn.Module, tuning: TrainingSettings, own: Sequence[CustomLearningRate] = ()
) -> torch.optim.Optimizer:
    """SGD or AdamW, fused; norms and biases (all vectors and scalars) do not decay."""
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
    if tuning.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=tuning.learning_rate, fused=True)
    return torch.optim.SGD(
        groups,
        lr=tuning.learning_rate,
        momentum=tuning.momentum,
        nesterov=tuning.nesterov and tuning.momentum > 0,
        fused=True,
    )
