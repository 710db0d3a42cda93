"""The layout: names and widths of groups, to show a mask without the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..arrays import Mask
from ..errors import UserError
from .channels import ChannelMap

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """One group: its layers and its atoms `first` to `end` - 1."""

    name: str
    layers: tuple[str, ...]
    channels: tuple[int, ...]  # dense output channels of each layer
    first: int
    end: int

    @property
    def atoms(self) -> int:
        """The number of atoms of the group."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Layout:
    """All groups of a network, in the order of their atoms."""

    groups: tuple[GroupLayout, ...] = ()

    @property
    def atoms(self) -> int:
        """A, the number of atoms."""
        return self.groups[-1].end if self.groups else 0

    def kept(self, keep: Mask) -> tuple[int, ...]:
        """Return how many atoms of each group a mask [A] keeps."""
        return tuple(int(keep[g.first : g.end].sum()) for g in self.groups)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values, as space.json holds it."""
        return {"schema": SCHEMA, "groups": [asdict(group) for group in self.groups]}


def build_layout(channel_map: ChannelMap) -> Layout:
    """Return the layout of a channel map."""
    widths = {layer.name: len(layer.out_atoms) for layer in channel_map.layers}
    ends = np.cumsum(np.bincount(channel_map.group_of, minlength=len(channel_map.groups)))
    firsts = [0, *ends[:-1].tolist()]
    return Layout(
        tuple(
            GroupLayout(
                g.name, g.layers, tuple(widths[name] for name in g.layers), first, int(end)
            )
            for g, first, end in zip(channel_map.groups, firsts, ends, strict=True)
        )
    )


def layout_from_json(values: Any, where: str = "space.json") -> Layout:
    """Read a layout that `to_json` wrote.

    Raises:
        UserError: If a newer version wrote it, or the atoms have gaps.
    """
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{where} must have schema {SCHEMA}, got {schema!r}; update paretoprune")
    try:
        groups = tuple(group_layout_from_json(group) for group in values["groups"])
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise UserError(f"{where} must hold groups, got {error!r}; delete it") from None
    firsts = [0, *(group.end for group in groups[:-1])]
    if any(g.first != first or g.end <= first for g, first in zip(groups, firsts, strict=False)):
        raise UserError(f"{where} must number its atoms group by group, got gaps; delete it")
    return Layout(groups)


def group_layout_from_json(values: Any) -> GroupLayout:
    """Read one group of a layout."""
    return GroupLayout(
        name=str(values["name"]),
        layers=tuple(str(name) for name in values["layers"]),
        channels=tuple(int(n) for n in values["channels"]),
        first=int(values["first"]),
        end=int(values["end"]),
    )
