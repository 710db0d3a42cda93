"""What one batch of calibration images showed of a network, as batch scores look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ...spaces.graph.channels import ChannelMap, Layer
from ...spaces.policy.layer_scores import LayerScores, Scores
from .filter_ops import filters_of, to_layer_scores, weight_of

BatchNeed = Literal["gates", "weights", "inputs"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Gradients of the batch's summed loss and inputs of layers; None where nobody needs them."""

    model: nn.Module
    channel_map: ChannelMap
    gates: Tensor | None  # [N, A]: dL_n / dm_i at a gate m_i = 1 on what is consumed of atom i
    weights: dict[int, Tensor] | None  # gradients by layer index, laid out like the weights
    inputs: dict[int, list[Tensor]] | None  # by index of the reading layer, one a call

    def per_gate(self, of_gradients: Callable[[Tensor], Tensor]) -> Scores:
        """The scores `of_gradients([N, A]) -> [A]` of every sample's own gate derivatives."""
        found = of_gradients(_require(self.gates, "gates"))
        scores: Scores = found.detach().to("cpu", torch.float64).numpy()
        return scores

    def per_filter(self, of_filters: Callable[[Tensor, Tensor], Tensor]) -> LayerScores:
        """The parts `of_filters(weight, gradient) -> [C_out]` of each layer, a row a filter."""
        found = {}
        for index, gradient in _require(self.weights, "weights").items():
            module = self.model.get_submodule(self.channel_map.layers[index].name)
            weight = weight_of(module).detach()
            found[index] = of_filters(filters_of(module, weight), filters_of(module, gradient))
        return to_layer_scores(found, self.channel_map)

    def per_input(self, of_values: Callable[[Tensor], Tensor]) -> LayerScores:
        """The parts `of_values([C_in, values]) -> [C_in]` of each layer that reads an atom.

        Channels that are one atom in the same layer are averaged.
        """
        found = {}
        for index, calls in _require(self.inputs, "inputs").items():
            layer = self.channel_map.layers[index]
            values = [x.movedim(channel_dim(layer), 0).flatten(1) for x in calls]
            found[index] = of_values(torch.cat(values, dim=1).float())
        return to_layer_scores(found, self.channel_map, "in", average=True)


def channel_dim(layer: Layer) -> int:
    """The dimension of the channels in a layer's input."""
    return -1 if layer.kind == "linear" else 1


def _require(value: T | None, need: BatchNeed) -> T:
    """What a batch score looks at, if it asked for it."""
    if value is None:
        raise LookupError(f"it must ask for what it reads: @batch_score(name, {need!r})")
    return value
