"""The exact cost of any mask, without running the network.

    macs(mask)   = fixed + sum_l  m_l * pairs_l
    params(mask) = fixed + sum_l (p_l * pairs_l + b_l * out_l)

out_l, in_l = kept channels of layer l; pairs_l = out_l * in_l, or out_l * (inputs of one
convolution group) where whole convolution groups are removed. Kept channels are linear in the
mask, so the cost is one matrix product and a quadratic form over the distinct layer sides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import FloatArray, Int32Array, IntArray, Mask
from ..graph.channels import ChannelMap, Layer
from .atom_kinds import AtomKinds

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MASKS_PER_CHUNK = 2048  # masks per matrix product, to stay in the CPU cache
FLOAT32_EXACT_LIMIT = 1 << 24


class CostModel:
    """Compute `(macs, params)` of masks of one channel map."""

    def __init__(self, channel_map: ChannelMap) -> None:
        sides = _LayerSides(channel_map.atoms)
        pairs: dict[tuple[int, int], IntArray] = {}
        linear: dict[int, IntArray] = {}
        for layer in channel_map.layers:
            out = sides.index(layer.out_atoms)
            if layer.conv_groups == 1 and layer.kind in ("conv", "linear"):
                key = (out, sides.index(layer.in_atoms))
                pairs[key] = pairs.get(key, np.zeros(2, np.int64)) + _cost_per_pair(layer)
            linear[out] = linear.get(out, np.zeros(2, np.int64)) + _cost_per_output(layer)
        self._membership = sides.membership()  # int64 [A, K]
        self._constant = np.array(sides.constants, dtype=np.int64)  # [K]
        self._left = np.array([out for out, _ in pairs], dtype=np.int64)
        self._right = np.array([into for _, into in pairs], dtype=np.int64)
        self._pair_cost = np.array(list(pairs.values()), dtype=np.int64).reshape(-1, 2)
        self._side_cost = np.zeros((len(self._constant), 2), dtype=np.int64)
        for side, cost in linear.items():
            self._side_cost[side] = cost
        self._fixed = np.array([channel_map.fixed_macs, channel_map.fixed_params], dtype=np.int64)
        self._group_of = channel_map.group_of
        total = self._constant + self._membership.sum(axis=0)
        exact32 = bool((total < FLOAT32_EXACT_LIMIT).all())
        self._matrix = self._membership.astype(np.float32 if exact32 else np.float64)
        # the part of an atom's cost that is quadratic in its own channels
        both = self._membership[:, self._left] * self._membership[:, self._right]
        self._own = both @ self._pair_cost  # [A, 2]

    @property
    def dense(self) -> tuple[int, int]:
        """The (macs, params) of the dense network."""
        macs, params = self.cost_of(np.ones(len(self._membership), dtype=bool))
        return int(macs), int(params)

    def cost_of(self, masks: Mask) -> IntArray:
        """Return the exact (macs, params) of masks [A] or [B, A]: int64 [2] or [B, 2]."""
        single, masks = masks.ndim == 1, np.atleast_2d(masks)
        parts = [
            self._cost_of_chunk(masks[i : i + MASKS_PER_CHUNK])
            for i in range(0, len(masks), MASKS_PER_CHUNK)
        ]
        costs = np.concatenate(parts) if parts else np.zeros((0, 2), dtype=np.int64)
        return costs[0] if single else costs

    def _cost_of_chunk(self, masks: Mask) -> IntArray:
        return self.cost_at_widths(self.kept_widths(masks))

    @property
    def channels_by_atom(self) -> IntArray:
        """How many channels of each layer side an atom owns: int64 [A, K]."""
        return self._membership

    def kept_widths(self, masks: Mask) -> IntArray:
        """Return the kept channels of each layer side: int64 [B, K]."""
        counts = masks.astype(self._matrix.dtype) @ self._matrix
        return np.asarray(counts.astype(np.int64) + self._constant)

    def cost_at_widths(self, kept: IntArray) -> IntArray:
        """Return the cost [B, 2] for given numbers of kept channels of each layer side [B, K]."""
        pairs = kept[:, self._left] * kept[:, self._right]
        return np.asarray(self._fixed + pairs @ self._pair_cost + kept @ self._side_cost)

    def cost_fractions(self, mask: Mask) -> tuple[float, float]:
        """Return the macs and params of a mask [A] as fractions of the dense network."""
        macs, params = self.cost_of(mask) / np.maximum(self.dense, 1)
        return float(macs), float(params)

    def marginal_costs(self, mask: Mask) -> FloatArray:
        """Return the cost change [A, 2] of flipping each atom: saved if kept, added if removed."""
        kept = self.kept_widths(mask[None])[0]
        slope = self._side_cost.copy()
        np.add.at(slope, self._left, kept[self._right, None] * self._pair_cost)
        np.add.at(slope, self._right, kept[self._left, None] * self._pair_cost)
        change = self._membership @ slope
        return (change - np.where(mask[:, None], self._own, -self._own)).astype(np.float64)

    @cached_property
    def atom_kinds(self) -> AtomKinds:
        """The kinds of atoms with equal marginal costs, and how these depend on the mask."""
        columns = np.column_stack((self._group_of, self._membership))
        found = np.unique(columns, axis=0, return_index=True, return_inverse=True)
        example, of_atom = found[1], found[2].reshape(-1)
        into = self._membership[example][:, self._right]
        out = self._membership[example][:, self._left]
        half = np.stack([(out * cost) @ into.T for cost in self._pair_cost.T])
        first = self.marginal_costs(np.zeros(len(of_atom), dtype=bool))[example]
        return AtomKinds(
            kind_of_atom=of_atom,
            size=np.bincount(of_atom, minlength=len(example)),
            first=first.T.astype(np.int64),
            change=half + half.transpose(0, 2, 1),
        )

    def differentiable_cost(self, device: torch.device | str) -> Callable[[Tensor], Tensor]:
        """Return the same formula as a function of a mask in [0, 1], float64 [A] -> [2].

        The constants are placed on `device` once, so that the function can run in every step.
        """
        import torch

        def constant(array: IntArray) -> Tensor:
            return torch.from_numpy(array).to(device, torch.float64)

        rows, fixed, start = map(constant, (self._membership, self._fixed, self._constant))
        pair_cost, side_cost = map(constant, (self._pair_cost, self._side_cost))
        left, right = (torch.from_numpy(i).to(device) for i in (self._left, self._right))

        def relaxed_cost(mask: Tensor) -> Tensor:
            kept = mask.double() @ rows + start
            return fixed + (kept[left] * kept[right]) @ pair_cost + kept @ side_cost

        return relaxed_cost

    def min_cost(self, min_channels: int = 1) -> tuple[int, int]:
        """Return the lowest macs and lowest params that keep `min_channels` atoms per group."""
        saving = self.marginal_costs(np.ones(len(self._membership), dtype=bool))
        low = []
        for column in range(2):
            keep = np.zeros(len(saving), dtype=bool)
            for group in np.unique(self._group_of):
                members = np.flatnonzero(self._group_of == group)
                order = np.argsort(saving[members, column], kind="stable")
                keep[members[order[:min_channels]]] = True
            low.append(int(self.cost_of(keep)[column]))
        return low[0], low[1]


class _LayerSides:
    """Number the distinct inputs and outputs of layers."""

    def __init__(self, atoms: int) -> None:
        self._atoms = atoms
        self._known: dict[bytes, int] = {}
        self._columns: list[IntArray] = []
        self.constants: list[int] = []

    def index(self, atoms: Int32Array) -> int:
        """Return the number of the side with these atoms, in any order."""
        column = np.bincount(atoms[atoms >= 0], minlength=self._atoms).astype(np.int64)
        constant = int((atoms < 0).sum())
        key = column.tobytes() + constant.to_bytes(8, "little")
        if key not in self._known:
            self._known[key] = len(self._columns)
            self._columns.append(column)
            self.constants.append(constant)
        return self._known[key]

    def membership(self) -> IntArray:
        """Return how many channels of each side an atom owns: int64 [A, K]."""
        if not self._columns:
            return np.zeros((self._atoms, 0), dtype=np.int64)
        return np.stack(self._columns, axis=1)


def _cost_per_pair(layer: Layer) -> IntArray:
    return np.array([layer.macs_per_pair, layer.params_per_pair], dtype=np.int64)


def _cost_per_output(layer: Layer) -> IntArray:
    """Return the cost of an output channel: its bias, and its pairs in a grouped convolution."""
    cost = np.array([0, layer.params_per_out], dtype=np.int64)
    if layer.conv_groups > 1:
        cost += _cost_per_pair(layer) * (len(layer.in_atoms) // layer.conv_groups)
    return cost
