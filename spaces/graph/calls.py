"""Traced aten operations, the labels of activations, and the table of label rules.

A rule is a function for one or more operations. It reads labels with `call.first_labels` or
`call.labels.get`, ties or protects them, and labels the outputs with `call.labels.put`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .labels import Couplings, squeeze_constant_dims, varying_dims

aten = torch.ops.aten


class ActivationLabels:
    """The labels of live activations; an activation without labels is a constant."""

    def __init__(self) -> None:
        self._of: Any = WeakTensorKeyDictionary()

    def get(self, tensor: Tensor) -> Tensor | None:
        """Return the labels of an activation; None if it has none."""
        found: Tensor | None = self._of.get(tensor)
        return found

    def put(self, tensor: Tensor, labels: Tensor | None) -> None:
        """Set the labels of an activation; None, or only -1, removes them."""
        if (
            labels is None
            or tensor.numel() == 0
            or not bool((squeeze_constant_dims(labels) >= 0).any())
        ):
            self._of.pop(tensor, None)
        else:
            self._of[tensor] = labels


def argument(op: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> Any:
    """Return an argument of an aten operation by its name in the schema; None if unknown.

    The dispatcher omits trailing arguments that equal their defaults.
    """
    for place, declared in enumerate(op._schema.arguments):
        if declared.name == name:
            return args[place] if place < len(args) else kwargs.get(name, declared.default_value)
    return None


@dataclass(frozen=True, slots=True)
class OperationCall:
    """One executed aten operation."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    labels: ActivationLabels
    couplings: Couplings
    location: str  # operation and module, for messages

    @property
    def first_labels(self) -> Tensor:
        """The labels of the first argument; -1 everywhere if it has none."""
        found = self.labels.get(self.args[0])
        return unlabelled_like(self.args[0]) if found is None else found

    def argument(self, name: str) -> Any:
        """Return an argument by its name in the operation's schema, or its default."""
        return argument(self.op, self.args, self.kwargs, name)

    def protect(self, labels: Tensor | None, why: str) -> None:
        """Protect labels; the reason is `why` and the location of the call."""
        self.couplings.protect(labels, f"{why} ({self.location})")


LabelRule = Callable[[OperationCall], None]
LABEL_RULES: dict[Any, LabelRule] = {}


def unlabelled_like(tensor: Tensor) -> Tensor:
    """Return labels -1 for a whole activation."""
    return torch.full((1,) * tensor.ndim, -1).expand(tensor.shape)


def register_rule(*names: str) -> Callable[[LabelRule], LabelRule]:
    """Register a rule for aten operations; operations unknown to this torch are skipped."""

    def register(rule: LabelRule) -> LabelRule:
        LABEL_RULES.update({getattr(aten, name): rule for name in names if hasattr(aten, name)})
        return rule

    return register


def protect_if_varying(call: OperationCall, labels: Tensor, dims: Sequence[int]) -> Tensor | None:
    """Return labels that do not vary along `dims`; otherwise protect them and return None."""
    if set(dims) & set(varying_dims(labels)):
        call.protect(labels, "works along channels")
        return None
    return labels
