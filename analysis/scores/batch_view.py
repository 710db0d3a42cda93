"""`Seen`: the gradients and activations of one calibration batch, the input of batch scores."""

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
    """Gradients and activations of one calibration batch.

    Gradients are those of the loss summed over the batch. A field is None unless the score lists
    it in `needs`. The methods reduce a field to scores; use them instead of the raw fields where
    possible, since they handle transposed convolutions and coupled channels.

    Example:
        @pp.batch_score("my-taylor", "gates")
        def my_taylor(seen: pp.Seen):
            return seen.per_gate(lambda gradients: gradients.abs().sum(0))
    """

    model: nn.Module
    channel_map: ChannelMap
    gates: Tensor | None  # [N, A]: dL_n / dm_i at a gate m_i = 1 on the inputs from atom i
    weights: dict[int, Tensor] | None  # gradients by layer index, in the shape of the weights
    inputs: dict[int, list[Tensor]] | None  # by index of the reading layer, one per call

    def per_gate(self, of_gradients: Callable[[Tensor], Tensor]) -> Scores:
        """Reduce the gate gradients of all samples to scores. Needs "gates".

        Args:
            of_gradients: Maps gradients [N, A] to scores [A].

        Returns:
            Scores, float64 [A].

        Raises:
            LookupError: If the score did not list "gates" in `needs`.
        """
        found = of_gradients(_require(self.gates, "gates"))
        scores: Scores = found.detach().to("cpu", torch.float64).numpy()
        return scores

    def per_filter(self, of_filters: Callable[[Tensor, Tensor], Tensor]) -> LayerScores:
        """Reduce each filter's weights and gradients to a score. Needs "weights".

        Args:
            of_filters: Maps weight and gradient, both [C_out, ...] with one row per filter, to
                numbers [C_out].

        Returns:
            One score per atom and layer that produces it.

        Raises:
            LookupError: If the score did not list "weights" in `needs`.
        """
        found = {}
        for index, gradient in _require(self.weights, "weights").items():
            module = self.model.get_submodule(self.channel_map.layers[index].name)
            weight = weight_of(module).detach()
            found[index] = of_filters(filters_of(module, weight), filters_of(module, gradient))
        return to_layer_scores(found, self.channel_map)

    def per_input(self, of_values: Callable[[Tensor], Tensor]) -> LayerScores:
        """Reduce each input channel's activations to a score. Needs "inputs".

        Args:
            of_values: Maps activations [C_in, values] to numbers [C_in].

        Returns:
            One score per atom and layer that reads it; the mean over the atom's channels there.

        Raises:
            LookupError: If the score did not list "inputs" in `needs`.
        """
        found = {}
        for index, calls in _require(self.inputs, "inputs").items():
            layer = self.channel_map.layers[index]
            values = [x.movedim(channel_dim(layer), 0).flatten(1) for x in calls]
            found[index] = of_values(torch.cat(values, dim=1).float())
        return to_layer_scores(found, self.channel_map, "in", average=True)


def channel_dim(layer: Layer) -> int:
    """The channel dimension of a layer's input."""
    return -1 if layer.kind == "linear" else 1


def _require(value: T | None, need: BatchNeed) -> T:
    """Return the value; raise LookupError if the score did not ask for it."""
    if value is None:
        raise LookupError(f"it must ask for what it reads: @batch_score(name, {need!r})")
    return value
