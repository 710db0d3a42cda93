"""Gradual pruning (Wang et al. 2017, "Gradually Global Pruning"): prune in several small steps.

    keep_0 = all,   keep_i = the mask chosen on the network that is cut to keep_{i-1}

Each step scores the pruned network of the step before, removes a few atoms of all layers, and may
fine-tune. The schedule ends at the last target, or when a step's network is rejected because its
accuracy is too low; then the network of the step before is the result.

We differ in: a step's size is an exact cost, not a percentage of neurons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
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
    """The network after some steps, its channel map, and the mask `keep` [A] of the dense one."""

    model: nn.Module
    channel_map: ChannelMap
    keep: Mask
    step: int


def always_accept(state: PrunedState) -> bool:
    """Accept every network: only the targets end the schedule."""
    return True


@dataclass(frozen=True, slots=True)
class StepCallbacks:
    """The parts of a step.

    `choose_mask(model, channel_map, target)` returns a mask of the current network. `fine_tune`
    recalibrates and fine-tunes the cut network in place. `accept` may reject the result.
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
    """Cut a copy of `model` step by step.

    Args:
        model: The dense network; it is not changed.
        channel_map: Its channel map.
        targets: One size per step, each relative to the dense network.
        steps: What each step does.
        checkpoint: A file written after every step; the same `identity` resumes from it.
        identity: Identifies the settings of the run in the checkpoint.
    """
    state = PrunedState(model, channel_map, np.ones(channel_map.atoms, bool), 0)
    if checkpoint is not None and checkpoint.is_file():
        state = load_step(checkpoint, state, identity)
    for target in targets[state.step :]:
        step_keep = steps.choose_mask(state.model, state.channel_map, target)
        candidate = PrunedState(
            prune_network(state.model, state.channel_map, step_keep),
            reduce_channel_map(state.channel_map, step_keep),
            expand_mask(state.keep, step_keep),
            state.step + 1,
        )
        steps.fine_tune(candidate)
        if not steps.accept(candidate):
            break
        state = candidate
        if checkpoint is not None:
            save_step(checkpoint, state, identity)
    return state


def save_step(path: Path, state: PrunedState, identity: str) -> None:
    """Write weights and mask to one file, atomically."""
    removed = [int(atom) for atom in np.flatnonzero(~state.keep)]
    record = {"schema": SCHEMA, "step": state.step, "removed": removed, "identity": identity}
    save_tensors(state.model.state_dict(), path, {"gradual": json.dumps(record)})


def load_step(path: Path, start: PrunedState, identity: str) -> PrunedState:
    """Load the state of an interrupted run; `start` is the dense network."""
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get("gradual", "{}"))
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"a checkpoint must be intact, got {path} which is not ({error}); delete it"
        ) from None
    if record.get("schema") != SCHEMA or record.get("identity") != identity:
        raise UserError(
            "gradual steps must be resumed with the settings that they started with, got others "
            f"in {path}; repeat them, or delete it"
        )
    keep = start.keep.copy()
    keep[record["removed"]] = False
    model = prune_network(start.model, start.channel_map, keep)
    model.load_state_dict(tensors)
    return PrunedState(model, reduce_channel_map(start.channel_map, keep), keep, record["step"])
