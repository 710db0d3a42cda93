"""Count the images that networks of this process are run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def counting(add: Callable[[int], None]) -> Iterator[None]:
    """Call `add` with the rows of each batch that reaches a linear layer.

    A ResNet has one, its last: rows that a probe shares up to some layer, and then multiplies,
    count as often as they were classified.
    """

    def on_forward(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.Linear):
            add(len(inputs[0]))

    handle = register_module_forward_pre_hook(on_forward)
    try:
        yield
    finally:
        handle.remove()
