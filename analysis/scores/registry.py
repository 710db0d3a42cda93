"""The registry of scores, and the view of a network that a score is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from ...spaces.channels import ChannelMap, Layer
from ...spaces.errors import UserError
from ...spaces.parts import Parts, Scores, whole
from ...trainers.split import Data, Split


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What a score may look at: the trained network, its map, calibration images from train."""

    model: nn.Module
    channel_map: ChannelMap
    data: Data
    calibration: Split
    rng: np.random.Generator

    def per_atom(self, of_weight: Callable[[Tensor], Tensor]) -> Parts:
        """The parts `of_weight(weight [C_out, ...]) -> [C_out]` of the filters of each atom."""
        return self.per_atom_of_layers(lambda _, module: of_weight(weight_of(module)))

    def per_atom_of_layers(
        self,
        of_layer: Callable[[Layer, nn.Module], Tensor],
        kinds: tuple[str, ...] = ("conv", "linear"),
    ) -> Parts:
        """The parts `of_layer(layer, module) -> [C_out]`, added up where an atom has several
        channels in one layer.
        """
        values, atoms, layers = [], [], []
        for index, layer in enumerate(self.channel_map.layers):
            owned = layer.out_atoms >= 0
            if layer.kind not in kinds or not owned.any():
                continue
            channels = of_layer(layer, self.model.get_submodule(layer.name))
            own, place = np.unique(layer.out_atoms[owned], return_inverse=True)
            values.append(np.bincount(place, channels.detach().double().cpu().numpy()[owned]))
            atoms.append(own)
            layers.append(np.full(len(own), index, dtype=np.int32))
        if not values:
            return whole(np.zeros(self.channel_map.atoms))
        return Parts(np.concatenate(values), np.concatenate(atoms), np.concatenate(layers))


Score = Callable[[Network], Scores | Parts]
S = TypeVar("S", bound=Score)
_REGISTRY: dict[str, Score] = {}


def score(name: str) -> Callable[[S], S]:
    """Register a score by name, so that the search samples it and `--policy` can name it."""

    def register(function: S) -> S:
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
