"""Find the tensor with the class scores in a network's output.

The rule is stateless and applies to the output of every call. A tensor is used directly. From a
tuple, list, mapping or dataclass, the only element that fits is used: a float tensor [N, C] with
at least one column per class. An output with no or several such elements is an error, so two
calls never read different elements of the same output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import prod

from torch import Tensor

from .errors import UserError
from .output_forms import SCORES, WHOLE

MAX_ELEMENTS_SHOWN = 4  # in an error message
# In training mode, these also return auxiliary scores; the main scores are `.logits`.
WITH_AUXILIARY = ("GoogLeNetOutputs", "InceptionOutputs")


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network returns: the form of its scores and the path of their element."""

    form: str = SCORES
    element: str = WHOLE

    @property
    def exact(self) -> bool:
        """Whether the scores need float32: bf16 would round probabilities to 0 or 1."""
        return self.form != SCORES


@dataclass(frozen=True, slots=True, eq=False)
class Element:
    """A tensor of an output and its path in Python syntax, e.g. `outputs.logits`."""

    path: str
    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.path} {list(self.tensor.shape)}"

    def fits(self, classes: int) -> bool:
        """Whether this is a float tensor [N, C] with at least one column per class."""
        tensor = self.tensor
        return tensor.is_floating_point() and tensor.ndim == 2 and tensor.shape[1] >= classes


def elements_of(output: object, path: str = WHOLE) -> Iterator[Element]:
    """Yield every tensor in an output, depth first."""
    if isinstance(output, Tensor):
        yield Element(path, output)
    elif is_dataclass(output) and not isinstance(output, type):
        for field in fields(output):
            yield from elements_of(getattr(output, field.name), f"{path}.{field.name}")
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from elements_of(value, f"{path}[{key!r}]")
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        for name, value in zip(output._fields, output, strict=True):
            yield from elements_of(value, f"{path}.{name}")
    elif isinstance(output, list | tuple):
        for index, value in enumerate(output):
            yield from elements_of(value, f"{path}[{index}]")


def tensors_in(output: object) -> list[Tensor]:
    """Return all tensors in an output, depth first."""
    return [element.tensor for element in elements_of(output)]


def element_of(output: object, classes: int, *, who: str = "a network") -> Element:
    """Return the element that holds the class scores.

    Args:
        output: What the network returned.
        classes: The number of classes.
        who: The name of the network in error messages.

    Raises:
        UserError: If no element fits, or several do.
    """
    found = list(elements_of(output))
    if has_auxiliary(output):
        found = [element for element in found if element.path == f"{WHOLE}.logits"]
    fitting = [element for element in found if element.fits(classes)]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        raise UserError(
            f"{who} must return one float tensor [N, {classes} or more], got "
            f"{len(fitting)} that fit: {', '.join(map(str, fitting))}; return the class scores "
            "alone"
        )
    got = (
        ", ".join(map(str, found[:MAX_ELEMENTS_SHOWN]))
        or f"{type(output).__name__} without a tensor"
    )
    remedy = f"set its number of classes to {classes}"
    if any(not element.tensor.is_floating_point() for element in found):
        got = ", ".join(f"{one} of {one.tensor.dtype}" for one in found[:MAX_ELEMENTS_SHOWN])
        remedy = "return the class scores before argmax"
    if any(element.tensor.ndim > 2 for element in found):
        remedy = "average over the positions, or flatten [N, C, 1, 1] with flatten(1)"
    if len(found) > MAX_ELEMENTS_SHOWN:
        got += f" and {len(found) - MAX_ELEMENTS_SHOWN} more"
    other_task = not isinstance(output, Tensor) or prod(output.shape[2:]) != 1
    rule = "only image classifiers are supported: " if other_task else ""
    raise UserError(
        f"{rule}{who} must return one float tensor [N, {classes} or more], got {got}; {remedy}"
    )


def has_auxiliary(output: object) -> bool:
    """Whether an output is that of torchvision's GoogLeNet or Inception in training mode."""
    kind = type(output)
    return kind.__name__ in WITH_AUXILIARY and kind.__module__.startswith("torchvision.models.")
