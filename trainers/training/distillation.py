"""Knowledge distillation: the loss on labels and on a teacher's outputs.

    L = (1 - w) CE(z, y) + w T^2 KL(softmax(z_t / T) || softmax(z / T))

z are the network's logits, z_t the teacher's, y the labels, w is `distill` and T `temperature`
(Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network").
"""

from __future__ import annotations

import copy
from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...spaces.outputs import element_of
from ..data.splits import DataSplits
from ..metrics.evaluate import logits_of
from ..runtime.device import DeviceConfig, autocast, to_device, to_memory_format
from .optimizer import TrainingSettings


def distillation_loss(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor | None, tuning: TrainingSettings
) -> Tensor:
    """The mean loss of a batch; without teacher logits, the loss on the labels."""
    logits = logits.float()
    hard = F.cross_entropy(logits, labels, label_smoothing=tuning.label_smoothing)
    if teacher_logits is None or tuning.distill == 0:
        return hard
    temperature = tuning.temperature
    soft = F.kl_div(
        F.log_softmax(logits / temperature, 1),
        F.log_softmax(teacher_logits.float() / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - tuning.distill) * hard + tuning.distill * temperature**2 * soft


def fused_eval_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode with batch norms fused into their convolutions.

    This saves a quarter of a ResNet-56's forward pass. A network that torch.fx cannot trace is
    copied without fusion.
    """
    from torch.fx.experimental.optimization import fuse

    plain = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        return fuse(plain).eval().requires_grad_(False)
    except Exception:  # tracing runs the user's code, which may raise anything
        return plain


# Enough for 6.7 million images with 10 classes, or 67,000 images with 1,000 classes.
LOGITS_CACHE_BYTES = 2**28


class Teacher:
    """A frozen copy of the dense network: no gradients, fused norms, low precision.

    The copy is made at the first call. With `memory` > 0, up to so many bytes of logits are cached
    by batch: trials with the same seed see the same batches, so only the first one computes them.
    """

    def __init__(self, model: nn.Module, machine: DeviceConfig, *, memory: int = 0) -> None:
        self.model, self.machine, self.memory_left = model, machine, memory
        self._fused: nn.Module | None = None  # built on demand: a teacher may be pickled
        self._cached_logits: dict[Hashable, Tensor] = {}

    @torch.no_grad()
    def __call__(
        self, images: Tensor, batch: Hashable = None, *, data: DataSplits | None = None
    ) -> Tensor:
        """The logits for normalised images.

        Args:
            images: The batch.
            batch: The cache key; equal keys must mean equal images. None: no caching.
            data: Defines how the outputs are read. Without, they must be one tensor of scores.
        """
        if batch in self._cached_logits:
            return self._cached_logits[batch]
        if self._fused is None:
            self._fused = to_device(fused_eval_copy(self.model), self.machine)
        with autocast(self.machine, exact=data is not None and data.outputs.exact):
            output = self._fused(to_memory_format(images, self.machine))
            logits = element_of(output, 1).tensor if data is None else logits_of(output, data)
        if batch is not None and logits.nbytes <= self.memory_left:
            self.memory_left -= logits.nbytes
            self._cached_logits[batch] = logits
        return logits
