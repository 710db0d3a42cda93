"""Gradual pruning (Wang et al. 2017, "Gradually Global Pruning"): a little in every step.

    keep_0 = all,   keep_i = the mask chosen on the network that is cut to keep_{i-1}

Each step looks at the network that is left: it is scored anew, a few atoms of all layers go at
once, and it may be fine-tuned before the next step. The schedule ends at a size (the last of the
targets) or when a step's network is refused (its accuracy is too low): then the one before stays.

We differ in: the steps' sizes are prices solved exactly, not a percentage of neurons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn

from ...spaces.cost.target import Target
from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...spaces.graph.reduce import expand_mask, reduce_channel_map
from ..training.checkpoint import save_tensors
from .surgery import prune_network

SCHEMA = 1
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PrunedState:
    """The network after some steps: its own map, and what it keeps [A] of the dense one."""

    model: nn.Module
    channel_map: ChannelMap
    keep: Mask
    step: int


def always_accept(present: PrunedState) -> bool:
    """Refuse nothing: the targets alone end the schedule."""
    return True


@dataclass(frozen=True, slots=True)
class StepCallbacks:
    """What a step does.

    `choose(model, map, target)` returns the mask of the present network, `settle` recalibrates and
    fine-tunes in place what was cut to it, and `accept` sees that and may refuse it.
    """

    choose_mask: Callable[[nn.Module, ChannelMap, Target], Mask]
    fine_tune: Callable[[PrunedState], None]
    accept: Callable[[PrunedState], bool] = always_accept


def prune_iteratively(
    model: nn.Module,
    channel_map: ChannelMap,
    targets: Sequence[Target],
    steps: StepCallbacks,
    *,
    checkpoint: Path | None = None,
    identity: str = "",
) -> PrunedState:
    """Cut a copy of `model` step by step; a `checkpoint` of the same identity is gone on from."""
    present = PrunedState(model, channel_map, np.ones(channel_map.atoms, bool), 0)
    if checkpoint is not None and checkpoint.is_file():
        present = load_step(checkpoint, present, identity)
    for target in targets[present.step :]:
        inner = steps.choose_mask(present.model, present.channel_map, target)
        following = PrunedState(
            prune_network(present.model, present.channel_map, inner),
            reduce_channel_map(present.channel_map, inner),
            expand_mask(present.keep, inner),
            present.step + 1,
        )
        steps.fine_tune(following)
        if not steps.accept(following):
            break
        present = following
        if checkpoint is not None:
            save_step(checkpoint, present, identity)
    return present


def save_step(path: Path, present: PrunedState, identity: str) -> None:
    """Weights and mask in one file, so that one rename makes the step durable."""
    removed = [int(atom) for atom in np.flatnonzero(~present.keep)]
    record = {"schema": SCHEMA, "step": present.step, "removed": removed, "identity": identity}
    save_tensors(present.model.state_dict(), path, {"gradual": json.dumps(record)})


def load_step(path: Path, start: PrunedState, identity: str) -> PrunedState:
    """The present network of an interrupted run."""
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get("gradual", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"a checkpoint must be whole, got {path} which is not ({error}); delete it"
        ) from None
    if record.get("schema") != SCHEMA or record.get("identity") != identity:
        raise UserError(
            f"gradual steps are resumed with the settings they began with, got others in {path}; "
            "repeat them, or delete it"
        )
    keep = start.keep.copy()
    keep[record["removed"]] = False
    model = prune_network(start.model, start.channel_map, keep)
    model.load_state_dict(tensors)
    return PrunedState(model, reduce_channel_map(start.channel_map, keep), keep, record["step"])
