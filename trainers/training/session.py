"""A training run that can be advanced step by step, saved and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..data.batches import iterate_batches
from ..data.splits import DataSplits
from ..metrics.evaluate import logits_of
from ..runtime.device import (
    DeviceConfig,
    autocast,
    detect_device_config,
    thread_limit,
    to_device,
    to_memory_format,
)
from .distillation import Teacher, distillation_loss
from .optimizer import CustomLearningRate, TrainingSettings, build_optimizer, learning_rate_at

LOSS_CHECK_INTERVAL = 16  # steps between checks of the loss on a GPU: a check synchronises


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the message names the step."""


@dataclass(frozen=True, slots=True)
class AuxiliaryLosses:
    """Terms of the loss besides the labels: a teacher's, and a penalty.

    The penalty is a function of the completed share of the run (0..1). The parameters that it
    concerns may have learning rates of their own (`own_rates`).
    """

    teacher: Teacher | None = None
    penalty: Callable[[float], Tensor] | None = None
    own_rates: tuple[CustomLearningRate, ...] = ()


class TrainingSession:
    """A model in training, with its optimizer, position in the epochs and random state.

    Args:
        model: The network; it is moved to the device in place.
        data: The splits; only train is used.
        tuning: How to train.
        seed: Determines the order, the augmentation and dropout.
        guidance: Terms of the loss besides the labels.
        machine: Device and precision; None: the fastest here.
    """

    def __init__(
        self,
        model: nn.Module,
        data: DataSplits,
        tuning: TrainingSettings,
        *,
        seed: int,
        guidance: AuxiliaryLosses | None = None,
        machine: DeviceConfig | None = None,
    ) -> None:
        guidance = guidance or AuxiliaryLosses()
        self.machine = machine or detect_device_config(model, data.input_shape)
        self.model = to_device(model, self.machine)
        self.forward = torch.compile(self.model) if self.machine.compile else self.model
        self.data, self.tuning, self.seed = data, tuning, seed
        self.optimizer = build_optimizer(model, tuning, guidance.own_rates)
        self.teacher = guidance.teacher if tuning.distill > 0 else None
        self.penalty = guidance.penalty
        self.ema_model = None
        if tuning.ema is not None:
            average = get_ema_multi_avg_fn(tuning.ema)  # type: ignore[no-untyped-call]
            self.ema_model = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self.batch_size = min(tuning.batch_size, len(data.train))
        self.steps_per_epoch = len(data.train) // self.batch_size
        self.total_steps = max(1, round(tuning.epochs * self.steps_per_epoch))
        self.step = 0
        self.current_learning_rate = 0.0
        self.reading_seconds = 0.0
        self._reader: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._sums: list[Tensor] = []
        self._unchecked: list[Tensor] = []

    @property
    def epoch(self) -> float:
        """The number of completed epochs, as a fraction."""
        return self.step / self.steps_per_epoch

    def advance(self, goal: int, *, begin: float | None = None) -> bool:
        """Train up to step `goal`; False if `max_seconds` since `begin` passed before it."""
        begin = time.perf_counter() if begin is None else begin
        limit = self.tuning.max_seconds
        devices = [torch.cuda.current_device()] if self.machine.device.startswith("cuda") else []
        self.model.train()
        with thread_limit(self.machine), torch.random.fork_rng(devices):
            while self.step < goal:
                if self.step % self.steps_per_epoch == 0:
                    self._start_epoch()
                self._take_step()
                if limit is not None and time.perf_counter() - begin > limit:
                    break
            self._check_losses()
        return self.step >= goal

    def finish(self) -> None:
        """Copy averaged weights, if any, into the model and put it in eval mode."""
        if self.ema_model is not None:
            self.model.load_state_dict(self.ema_model.module.state_dict())
        self.model.eval()

    def pop_means(self) -> tuple[float, float]:
        """Mean loss and accuracy since the last call."""
        if not self._sums:
            return math.nan, math.nan
        loss, hits = torch.stack(self._sums).double().mean(0).tolist()
        self._sums.clear()
        return loss, hits / self.batch_size

    def seek(self, step: int) -> None:
        """Move to a step; the next batches are those of an uninterrupted run."""
        self.step = step
        if step % self.steps_per_epoch:
            self._start_epoch()
            for _ in range(step % self.steps_per_epoch):
                next(self._reader)

    def _start_epoch(self) -> None:
        epoch = self.step // self.steps_per_epoch
        self._reader = iterate_batches(
            self.data.train,
            self.data,
            batch_size=self.batch_size,
            generator=torch.Generator().manual_seed(mix_seeds(self.seed, epoch)),
            augment=self.data.augment,
            device=self.machine.device,
        )

    def _take_step(self) -> None:
        begin = time.perf_counter()
        images, labels = next(self._reader)
        images = to_memory_format(images, self.machine)
        self.reading_seconds += time.perf_counter() - begin
        torch.manual_seed(mix_seeds(self.seed, self.step))  # for dropout, also after a resume
        self.current_learning_rate = learning_rate_at(self.tuning, self.step, self.total_steps)
        share = self.step / self.total_steps
        for group in self.optimizer.param_groups:
            own_rate = group.get("own_rate")
            group["lr"] = self.current_learning_rate if own_rate is None else own_rate(share)
        teacher_logits = None
        if self.teacher is not None:
            batch_key = (self.data, self.seed, self.step, self.batch_size)
            teacher_logits = self.teacher(images, batch_key, data=self.data)
        with autocast(self.machine, exact=self.data.outputs.exact):
            logits = logits_of(self.forward(images), self.data)
        loss = distillation_loss(logits, labels, teacher_logits, self.tuning)
        if self.penalty is not None:
            loss = loss + self.penalty(share)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.tuning.clip is not None:
            groups = self.optimizer.param_groups
            common = [p for g in groups if "own_rate" not in g for p in g["params"]]
            nn.utils.clip_grad_norm_(common, self.tuning.clip)
        hits = (logits.detach().argmax(1) == labels).sum()
        self._sums.append(torch.stack([loss.detach().float(), hits.float()]))
        self._unchecked.append(loss.detach())
        self.step += 1
        if self.machine.device == "cpu" or self.step % LOSS_CHECK_INTERVAL == 0:
            self._check_losses()  # before the optimizer step
        self.optimizer.step()
        if self.ema_model is not None:
            self.ema_model.update_parameters(self.model)

    def _check_losses(self) -> None:
        """Raise TrainingDivergedError for the first step whose loss is not finite."""
        if not self._unchecked:
            return
        losses = torch.stack(self._unchecked).tolist()
        first = self.step - len(losses) + 1
        self._unchecked.clear()
        for step, loss in enumerate(losses, first):
            if not math.isfinite(loss):
                raise TrainingDivergedError(
                    f"the loss must stay finite, got {loss} at step {step} of {self.total_steps} "
                    f"with learning rate {self.current_learning_rate:.4g}; lower it"
                )


def mix_seeds(seed: int, count: int) -> int:
    """Combine two numbers into one well-distributed seed (multipliers of splitmix64)."""
    return (seed * 0x9E3779B97F4A7C15 + count * 0xBF58476D1CE4E5B9 + 1) % 2**63
