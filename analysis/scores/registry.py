"""The registry of scores, and the view of a network that a score is computed from.

A score of the weights is a function of the `Network`. A score of data is a function of what was
`Seen` of one batch: all of them share one pass over the calibration images (shared_pass.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap, Layer
from ...spaces.policy.layer_scores import LayerScores, Scores
from ...trainers.data.splits import DataSplits, Split
from .batch_view import BatchNeed, Seen
from .filter_ops import filters_of, to_layer_scores, weight_of


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What a score may look at: the trained network, its map, calibration images from train."""

    model: nn.Module
    channel_map: ChannelMap
    data: DataSplits
    calibration: Split
    rng: np.random.Generator

    def per_atom(self, of_weight: Callable[[Tensor], Tensor]) -> LayerScores:
        """The parts `of_weight(weight [C_out, ...]) -> [C_out]` of the filters of each atom."""
        return self.per_atom_of_layers(
            lambda _, module: of_weight(filters_of(module, weight_of(module)))
        )

    def per_atom_of_layers(
        self,
        of_layer: Callable[[Layer, nn.Module], Tensor | None],
        kinds: tuple[str, ...] = ("conv", "linear"),
    ) -> LayerScores:
        """The parts `of_layer(layer, module) -> [C_out]`, added up where an atom has several
        channels in one layer; a layer of which it makes None has no part.
        """
        channels = {
            index: numbers
            for index, layer in enumerate(self.channel_map.layers)
            if layer.kind in kinds and (layer.out_atoms >= 0).any()
            if (numbers := of_layer(layer, self.model.get_submodule(layer.name))) is not None
        }
        return to_layer_scores(channels, self.channel_map)


ScoreFunction = Callable[[Network], Scores | LayerScores]
BatchScoreFunction = Callable[[Seen], Scores | LayerScores]


@dataclass(frozen=True, slots=True)
class BatchScore:
    """A score that adds up over batches, or averages over images, and what it needs to see."""

    function: BatchScoreFunction
    needs: tuple[BatchNeed, ...]
    average: bool


S = TypeVar("S", bound=ScoreFunction)
B = TypeVar("B", bound=BatchScoreFunction)
_REGISTRY: dict[str, ScoreFunction | BatchScore] = {}


def score(name: str) -> Callable[[S], S]:
    """Register a score by name, so that the search samples it and `--policy` can name it."""

    def register(function: S) -> S:
        register_score(name, function)
        return function

    return register


def batch_score(name: str, *needs: BatchNeed, average: bool = False) -> Callable[[B], B]:
    """Register a score of data: a function of one batch that sees what it `needs`.

    gates: every sample's derivative of its loss in every gate. weights: gradients of weights.
    inputs: activations where they are consumed; alone, they take no backward pass.
    `average`: the function returns a mean over the batch's images, not a sum.
    """
    if not needs or not set(needs) <= set(get_args(BatchNeed)):
        choices = ", ".join(get_args(BatchNeed))
        raise UserError(f"batch score {name!r} must need one or more of {choices}, got {needs}")

    def register(function: B) -> B:
        register_score(name, BatchScore(function, needs, average))
        return function

    return register


def register_score(name: str, method: ScoreFunction | BatchScore) -> None:
    """Register a method; only its own module may do so again."""
    known, home = _REGISTRY.get(name), score_function(method).__module__
    if known is not None and score_function(known).__module__ != home:
        raise UserError(f"a score's name must be new, got {name!r} again; choose another name")
    _REGISTRY[name] = method


def unregister_score(name: str) -> None:
    """Take a score out of the registry."""
    del _REGISTRY[name]


def score_function(method: ScoreFunction | BatchScore) -> ScoreFunction | BatchScoreFunction:
    """The decorated function."""
    return method.function if isinstance(method, BatchScore) else method


def all_scores() -> dict[str, ScoreFunction | BatchScore]:
    """Every registered score by name, in order of name."""
    return dict(sorted(_REGISTRY.items()))
