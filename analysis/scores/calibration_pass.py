"""One pass over the calibration images for all batch scores together.

Each batch costs one forward and at most one backward pass, in eval mode. The same run records the
gradients of gates (a gate of 1 per sample and atom) and of weights, and the inputs of layers. It
uses bf16 where the device gains from it, which keeps the order of atoms (benchmarks/scores.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap
from ...spaces.policy.layer_scores import LayerScores
from ...trainers.data.batches import iterate_batches
from ...trainers.metrics.evaluate import logits_of
from ...trainers.pruning.masking import READER_KINDS, BatchRegroupedError, masked
from ...trainers.runtime.device import (
    DeviceConfig,
    autocast,
    device_config_for,
    halve_batch,
    thread_limit,
    to_device,
    to_memory_format,
)
from ...trainers.runtime.modes import eval_mode
from .batch_view import BatchNeed, Seen
from .filter_ops import weight_of
from .registry import BatchScore, Network
from .validation import call_score

MAX_BATCH_SIZE = 128
MAX_BATCH_VALUES = MAX_BATCH_SIZE * 3 * 64 * 64  # larger images use smaller batches
OnImagesDone = Callable[[int, int], None]  # images done, total


@dataclass(frozen=True, slots=True)
class CalibrationPassResult:
    """Scores by name, and the counts of forward passes, backward passes and images."""

    scores: dict[str, LayerScores]
    counts: dict[str, int]


def batch_size_for(input_shape: tuple[int, ...]) -> int:
    """Batch size for an input shape: 128, less for large images."""
    return max(1, min(MAX_BATCH_SIZE, MAX_BATCH_VALUES // prod(input_shape)))


def run_calibration_pass(
    network: Network,
    scores: Mapping[str, BatchScore],
    *,
    machine: DeviceConfig | None = None,
    on_progress: OnImagesDone | None = None,
) -> CalibrationPassResult:
    """Compute several batch scores in one pass over `network.calibration`.

    If the network regroups its batch, the batch size is 1. If memory runs out, the pass restarts
    with half the batch size.
    """
    if not scores:
        return CalibrationPassResult({}, {"forwards": 0, "backwards": 0, "images": 0})
    shape = tuple(network.data.input_shape)
    machine = machine or device_config_for(network.model, shape)
    size = batch_size_for(shape)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(to_device(network.model, machine)))
        stack.enter_context(thread_limit(machine))
        while True:
            try:
                return _run_all_batches(network, scores, size, machine, on_progress)
            except BatchRegroupedError:
                size = 1
            except (MemoryError, RuntimeError) as error:
                size = halve_batch(size, error)


def _run_all_batches(
    network: Network,
    scores: Mapping[str, BatchScore],
    size: int,
    machine: DeviceConfig,
    on_progress: OnImagesDone | None,
) -> CalibrationPassResult:
    atoms, total = network.channel_map.atoms, len(network.calibration)
    sums: dict[str, LayerScores] = {}
    done = count = 0
    for images, labels in iterate_batches(
        network.calibration, network.data, batch_size=size, device=machine.device
    ):
        seen = _observe_batch(network, scores, to_memory_format(images, machine), labels, machine)
        for name, method in scores.items():
            parts = call_score(name, method.function, seen, atoms)
            weight = len(labels) / total if method.average else 1.0
            sums[name] = _accumulate(name, sums.get(name), parts, weight)
        count, done = count + 1, done + len(labels)
        if on_progress:
            on_progress(done, total)
    backwards = count if _combined_needs(scores) & {"gates", "weights"} else 0
    return CalibrationPassResult(sums, {"forwards": count, "backwards": backwards, "images": done})


def _combined_needs(scores: Mapping[str, BatchScore]) -> set[BatchNeed]:
    return {need for method in scores.values() for need in method.needs}


def _accumulate(
    name: str, total: LayerScores | None, parts: LayerScores, weight: float
) -> LayerScores:
    """Add a batch's weighted scores to the total; every batch must score the same atoms."""
    value = parts.value * weight
    if total is None:
        return replace(parts, value=value)
    same = (np.array_equal(getattr(total, k), getattr(parts, k)) for k in ("atom", "layer"))
    if not all(same):
        raise UserError(
            f"score {name!r} must score the same atoms and layers in every batch, got others in a "
            "later batch; return 0 for an atom without a value"
        )
    return replace(parts, value=total.value + value)


def _observe_batch(
    network: Network,
    scores: Mapping[str, BatchScore],
    images: Tensor,
    labels: Tensor,
    machine: DeviceConfig,
) -> Seen:
    """Run one forward pass, and one backward pass if gradients are needed."""
    model, channel_map, needs = network.model, network.channel_map, _combined_needs(scores)
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(torch.set_grad_enabled(bool(needs & {"gates", "weights"})))
        sources: list[Tensor] = []
        weights: dict[int, Tensor] | None = None
        inputs: dict[int, list[Tensor]] | None = None
        if "gates" in needs:
            sources.append(_unit_gates(images, channel_map.atoms))
            enter(masked(model, channel_map, sources[0]))
        if "weights" in needs:
            weights = enter(_weights_requiring_grad(model, channel_map))
            sources += weights.values()
        if "inputs" in needs:
            inputs = enter(_record_inputs(model, channel_map))
        with autocast(machine, exact=network.data.outputs.exact):
            logits = logits_of(model(images), network.data)
        loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
        if not torch.isfinite(loss):
            raise UserError(
                f"scores {', '.join(scores)} must see a finite loss, got {loss.item()}; "
                "check the network's weights and the calibration images"
            )
        found = list(torch.autograd.grad(loss, sources, materialize_grads=True)) if sources else []
    gates = found.pop(0).view(-1, channel_map.atoms) if "gates" in needs else None
    gradients = None if weights is None else dict(zip(weights, found, strict=True))
    return Seen(model, channel_map, gates, gradients, inputs)


def _unit_gates(images: Tensor, atoms: int) -> Tensor:
    """Ones that require gradients: [N, A], or [A] for a single image, which may be regrouped."""
    shape = (len(images), atoms) if len(images) > 1 else (atoms,)
    return torch.ones(shape, device=images.device, requires_grad=True)


@contextmanager
def _weights_requiring_grad(
    model: nn.Module, channel_map: ChannelMap
) -> Iterator[dict[int, Tensor]]:
    """Weights of the layers that produce atoms, by layer index; unfrozen within the context."""
    weights = {
        index: weight_of(model.get_submodule(layer.name))
        for index, layer in enumerate(channel_map.layers)
        if layer.kind in ("conv", "linear") and (layer.out_atoms >= 0).any()
    }
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        yield weights
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


@contextmanager
def _record_inputs(model: nn.Module, channel_map: ChannelMap) -> Iterator[dict[int, list[Tensor]]]:
    """Record the inputs of the layers that read atoms, by layer index."""
    inputs: dict[int, list[Tensor]] = defaultdict(list)

    def recorder(index: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            inputs[index].append(args[0].detach())

        return hook

    handles = [
        model.get_submodule(layer.name).register_forward_pre_hook(recorder(index))
        for index, layer in enumerate(channel_map.layers)
        if layer.kind in READER_KINDS and (layer.in_atoms >= 0).any()
    ]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
