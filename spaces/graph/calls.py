"""One aten operation as the trace sees it, the labels of what it touches, and the table of rules.

A rule is a function for one or more operations: it reads labels with `call.first` or
`call.labels.get`, ties or protects them, and gives the outputs theirs with `call.labels.put`.
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
    """The labels of the activations alive; an activation without labels is a constant."""

    def __init__(self) -> None:
        self._of: Any = WeakTensorKeyDictionary()

    def get(self, tensor: Tensor) -> Tensor | None:
        """The labels of an activation, None if it has none."""
        found: Tensor | None = self._of.get(tensor)
        return found

    def put(self, tensor: Tensor, labels: Tensor | None) -> None:
        """Give an activation labels; None or nothing but -1 takes them away."""
        if (
            labels is None
            or tensor.numel() == 0
            or not bool((squeeze_constant_dims(labels) >= 0).any())
        ):
            self._of.pop(tensor, None)
        else:
            self._of[tensor] = labels


def argument(op: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> Any:
    """An argument of an aten operation by its name in the schema; None if it has no such one.

    The dispatcher leaves out trailing arguments that equal their defaults.
    """
    for place, declared in enumerate(op._schema.arguments):
        if declared.name == name:
            return args[place] if place < len(args) else kwargs.get(name, declared.default_value)
    return None


@dataclass(frozen=True, slots=True)
class OperationCall:
    """One aten operation as it ran."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    labels: ActivationLabels
    couplings: Couplings
    location: str  # the operation and the module it ran in, for messages

    @property
    def first_labels(self) -> Tensor:
        """The labels of the first argument; -1 where it has none."""
        found = self.labels.get(self.args[0])
        return unlabelled_like(self.args[0]) if found is None else found

    def argument(self, name: str) -> Any:
        """An argument by its name in the operation's schema, defaults included."""
        return argument(self.op, self.args, self.kwargs, name)

    def protect(self, labels: Tensor | None, why: str) -> None:
        """Protect labels and say where."""
        self.couplings.protect(labels, f"{why} ({self.location})")


LabelRule = Callable[[OperationCall], None]
LABEL_RULES: dict[Any, LabelRule] = {}


def unlabelled_like(tensor: Tensor) -> Tensor:
    """Labels -1 for all of an activation."""
    return torch.full((1,) * tensor.ndim, -1).expand(tensor.shape)


def register_rule(*names: str) -> Callable[[LabelRule], LabelRule]:
    """Register a rule for aten operations; names that this torch does not have are skipped."""

    def register(rule: LabelRule) -> LabelRule:
        LABEL_RULES.update({getattr(aten, name): rule for name in names if hasattr(aten, name)})
        return rule

    return register


def protect_if_varying(call: OperationCall, labels: Tensor, dims: Sequence[int]) -> Tensor | None:
    """The labels if they do not vary along `dims`; else they are protected, and None."""
    if set(dims) & set(varying_dims(labels)):
        call.protect(labels, "works along channels")
        return None
    return labels
