"""Registry of scores, and `Network`, the input of weight scores.

A weight score is a function of a `Network`. A batch score is a function of `Seen`, one calibration
batch; all batch scores share one pass over the calibration images (calibration_pass.py).
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
    """The trained network that a score reads.

    Attributes:
        model: The network, in eval mode.
        channel_map: Its groups, atoms and layers.
        data: The data splits and their normalization.
        calibration: Images of the train split.
        rng: Source of randomness; every score has its own.

    Example:
        @pp.score("my-l1")
        def my_l1(network: pp.Network):
            return network.per_atom(lambda weight: weight.abs().flatten(1).sum(1))
    """

    model: nn.Module
    channel_map: ChannelMap
    data: DataSplits
    calibration: Split
    rng: np.random.Generator

    def per_atom(self, of_weight: Callable[[Tensor], Tensor]) -> LayerScores:
        """Reduce the filters of every convolution and linear layer to scores.

        Args:
            of_weight: Maps a weight [C_out, ...] to one number per filter [C_out].

        Returns:
            One score per atom and layer that produces it.
        """
        return self.per_atom_of_layers(
            lambda _, module: of_weight(filters_of(module, weight_of(module)))
        )

    def per_atom_of_layers(
        self,
        of_layer: Callable[[Layer, nn.Module], Tensor | None],
        kinds: tuple[str, ...] = ("conv", "linear"),
    ) -> LayerScores:
        """Reduce the layers of some kinds to scores.

        Args:
            of_layer: Maps a layer and its module to one number per output channel [C_out], or to
                None to skip the layer.
            kinds: The kinds of layers to reduce.

        Returns:
            One score per atom and layer; the sum over the atom's channels in the layer.
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
    """A batch score: its function, the fields of `Seen` that it needs, and sum or average."""

    function: BatchScoreFunction
    needs: tuple[BatchNeed, ...]
    average: bool


S = TypeVar("S", bound=ScoreFunction)
B = TypeVar("B", bound=BatchScoreFunction)
_REGISTRY: dict[str, ScoreFunction | BatchScore] = {}


def score(name: str) -> Callable[[S], S]:
    """Register a weight score, so that searches sample it and `--policy` accepts its name.

    Args:
        name: A name that no other score has.

    Returns:
        A decorator for a function of a `Network`. The function returns one number per atom [A],
        or the result of a method of `Network`; higher numbers are kept longer.

    Raises:
        UserError: If another module registered the name.

    Example:
        @pp.score("my-l1")
        def my_l1(network: pp.Network):
            return network.per_atom(lambda weight: weight.abs().flatten(1).sum(1))
    """

    def register(function: S) -> S:
        register_score(name, function)
        return function

    return register


def batch_score(name: str, *needs: BatchNeed, average: bool = False) -> Callable[[B], B]:
    """Register a batch score, computed from gradients or activations of calibration batches.

    Args:
        name: A name that no other score has.
        needs: One or more fields of `Seen`: "gates" for the gradient of each sample's loss in each
            gate, "weights" for gradients of weights, "inputs" for the inputs of layers. A score
            that needs "inputs" only takes no backward pass.
        average: True if the function returns a mean over the images of the batch. By default it
            returns a sum, and sums are added over batches.

    Returns:
        A decorator for a function of a `Seen`. The function returns one number per atom [A], or
        the result of a method of `Seen`.

    Raises:
        UserError: If `needs` is empty or unknown, or if another module registered the name.

    Example:
        @pp.batch_score("my-taylor", "gates")
        def my_taylor(seen: pp.Seen):
            return seen.per_gate(lambda gradients: gradients.abs().sum(0))
    """
    if not needs or not set(needs) <= set(get_args(BatchNeed)):
        choices = ", ".join(get_args(BatchNeed))
        raise UserError(
            f"batch score {name!r} must need one or more of {choices}, got {needs}; "
            "for example @pp.batch_score(name, 'gates')"
        )

    def register(function: B) -> B:
        register_score(name, BatchScore(function, needs, average))
        return function

    return register


def register_score(name: str, method: ScoreFunction | BatchScore) -> None:
    """Register a score; the module that registered a name may replace it."""
    known, module = _REGISTRY.get(name), score_function(method).__module__
    if known is not None and score_function(known).__module__ != module:
        raise UserError(f"a score's name must be unique, got {name!r} twice; choose another name")
    _REGISTRY[name] = method


def unregister_score(name: str) -> None:
    """Remove a score from the registry."""
    del _REGISTRY[name]


def score_function(method: ScoreFunction | BatchScore) -> ScoreFunction | BatchScoreFunction:
    """The function of a score."""
    return method.function if isinstance(method, BatchScore) else method


def all_scores() -> dict[str, ScoreFunction | BatchScore]:
    """All registered scores, sorted by name."""
    return dict(sorted(_REGISTRY.items()))
