"""The registry of scores, and the view of a network that a score is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...spaces.channels import ChannelMap, Layer
from ...spaces.errors import UserError
from ...trainers.split import Data, Split

Scores = NDArray[np.float64]  # [A]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What a score may look at: the trained network, its map, and calibration images from train."""

    model: nn.Module
    channel_map: ChannelMap
    data: Data
    calibration: Split
    rng: np.random.Generator

    def per_atom(self, of_weight: Callable[[Tensor], Tensor]) -> Scores:
        """Sum `of_weight(weight [C_out, ...]) -> [C_out]` over the filters that each atom owns."""
        return self.per_atom_of_layers(lambda _, module: of_weight(weight_of(module)))

    def per_atom_of_layers(
        self,
        of_layer: Callable[[Layer, nn.Module], Tensor],
        kinds: tuple[str, ...] = ("conv", "linear"),
    ) -> Scores:
        """Sum `of_layer(layer, module) -> [C_out]` over the channels that each atom owns."""
        total = np.zeros(self.channel_map.atoms)
        for layer in self.channel_map.layers:
            owned = layer.out_atoms >= 0
            if layer.kind not in kinds or not owned.any():
                continue
            values = of_layer(layer, self.model.get_submodule(layer.name))
            channels = values.detach().double().cpu().numpy()
            np.add.at(total, layer.out_atoms[owned], channels[owned])
        return total


Score = Callable[[Network], Scores]
_REGISTRY: dict[str, Score] = {}


def score(name: str) -> Callable[[Score], Score]:
    """Register a score by name, so that the search samples it and `--policy` can name it."""

    def register(function: Score) -> Score:
        known = _REGISTRY.get(name)
        if known is not None and known.__module__ != function.__module__:
            raise UserError(f"a score's name must be new, got {name!r} again; choose another name")
        _REGISTRY[name] = function
        return function

    return register


def all_scores() -> dict[str, Score]:
    """Every registered score by name, in order of name."""
    return dict(sorted(_REGISTRY.items()))


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a convolution or linear layer as a tensor."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight
