"""The copy of a user's network that everything works on; the user's own is never touched."""

from __future__ import annotations

import copy

from torch import nn


def working_copy(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy in float32 on the CPU, eval mode, and notes on what was changed."""
    return copy.deepcopy(model).float().cpu().eval(), ()
