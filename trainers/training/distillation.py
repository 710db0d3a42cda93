"""The loss of a step: labels, and a teacher's soft answers (Hinton, Vinyals and Dean 2015).

    L = (1 - w) CE(z, y) + w T^2 KL(softmax(z_t / T) || softmax(z / T))

z are the network's logits, z_t the teacher's, w `distill`, T `temperature`.
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
    """The mean loss of a batch; without the teacher's logits only the labels count."""
    logits = logits.float()
    hard = F.cross_entropy(logits, labels, label_smoothing=tuning.label_smoothing)
    if teacher_logits is None or tuning.distill == 0:
        return hard
    warmth = tuning.temperature
    soft = F.kl_div(
        F.log_softmax(logits / warmth, 1),
        F.log_softmax(teacher_logits.float() / warmth, 1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - tuning.distill) * hard + tuning.distill * warmth**2 * soft


def fused_eval_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode with batch norms folded into their convolutions, where fx can trace it.

    Saves a quarter of a ResNet-56's forward pass; what fx cannot trace is copied as it is.
    """
    from torch.fx.experimental.optimization import fuse

    plain = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        return fuse(plain).eval().requires_grad_(False)
    except Exception:  # tracing runs the user's code: whatever it raises, the plain copy serves
        return plain


LOGITS_CACHE_BYTES = (
    2**28
)  # bytes of logits: of 6.7 million images of ten classes, 67,000 of a thousand


class Teacher:
    """A frozen copy of the dense network, kept cheap: no gradients, no norms, low precision.

    The copy is made when it is first asked. With `memory` (bytes of logits) it is not asked twice
    about the same batch: trials that train under one seed see the same batches, so all but the
    first are taught for nothing.
    """

    def __init__(self, model: nn.Module, machine: DeviceConfig, *, memory: int = 0) -> None:
        self.model, self.machine, self.memory_left = model, machine, memory
        self._folded: nn.Module | None = None  # made where it is needed: a teacher may travel
        self._said: dict[Hashable, Tensor] = {}

    @torch.no_grad()
    def __call__(
        self, images: Tensor, batch: Hashable = None, *, data: DataSplits | None = None
    ) -> Tensor:
        """The logits for prepared images; an equal `batch` promises equal images.

        `data` say how the outputs are read; without, they must be a single tensor of scores.
        """
        if batch in self._said:
            return self._said[batch]
        if self._folded is None:
            self._folded = to_device(fused_eval_copy(self.model), self.machine)
        with autocast(self.machine, exact=data is not None and data.outputs.exact):
            output = self._folded(to_memory_format(images, self.machine))
            logits = element_of(output, 1).tensor if data is None else logits_of(output, data)
        if batch is not None and logits.nbytes <= self.memory_left:
            self.memory_left -= logits.nbytes
            self._said[batch] = logits
        return logits
