"""`paretoprune inspect`: what of a network can be removed, and what it costs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from ...spaces.allocations.decode import Space
from ...spaces.cost.cost import Price
from ...spaces.cost.summary import Summary, summarise
from ...spaces.errors import UserError
from ...spaces.graph.trace import trace_channels
from ...spaces.graph.working_copy import working_copy
from ...trainers.models.build import build_model
from ..config.settings import at_least

MOST_CAUSES = 5


@dataclass(frozen=True, slots=True)
class Inspection:
    """What to inspect."""

    model: str
    input_shape: str
    classes: int
    keep: tuple[str, ...]
    as_json: bool


def inspect_network(asked: Inspection, *, min_channels: int, round_to: int) -> None:
    """Build, trace, price and print."""
    at_least("--min-channels", min_channels, 1)
    at_least("--round-to", round_to, 1)
    at_least("--classes", asked.classes, 0)
    shape = parse_shape(asked)
    classes = asked.classes or (1000 if asked.model.startswith("torchvision:") else 10)
    model, notes = working_copy(
        build_model(asked.model, classes=classes, input_shape=shape, seed=0, any_task=True)
    )
    channel_map = trace_channels(model, shape, keep=asked.keep)
    space = Space(channel_map, Price(channel_map), min_channels, round_to)
    summary = summarise(channel_map, space.price, lowest=space.lowest())
    notes = (*assumed(asked, shape, classes), *notes)
    if asked.as_json:
        print(json.dumps({"schema": 1, "notes": list(notes), **asdict(summary)}, indent=2))
        return
    console = Console(highlight=False)
    for note in notes:
        console.print(note)
    print_summary(summary, console)


def assumed(asked: Inspection, shape: tuple[int, ...], classes: int) -> list[str]:
    """What was not asked for, and is taken as usual."""
    found = []
    if not asked.input_shape:
        found.append(f"--input is taken as {','.join(map(str, shape))}")
    if not asked.classes:
        found.append(f"--classes is taken as {classes}")
    return found


def parse_shape(asked: Inspection) -> tuple[int, ...]:
    """Read --input; a default by the kind of model."""
    if not asked.input_shape:
        if asked.model.startswith("torchvision:"):
            return (3, 224, 224)
        return (1, 8, 8) if asked.model.startswith("digits") else (3, 32, 32)
    try:
        shape = tuple(int(part) for part in asked.input_shape.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UserError(
            f"--input must be sizes above 0, got {asked.input_shape!r}; write 3,224,224"
        )
    return shape


def print_summary(summary: Summary, console: Console) -> None:
    """The groups as a table, what is protected or not read and why, totals."""
    table = Table(title=f"{len(summary.groups)} groups, {summary.atoms} atoms")
    table.add_column("group")
    table.add_column("coupled layers", overflow="fold")
    for heading in ("atoms", "FLOPs %", "params %"):
        table.add_column(heading, justify="right")
    for group in summary.groups:
        shares = (f"{100 * group.macs_share:.1f}", f"{100 * group.params_share:.1f}")
        table.add_row(group.name, coupled(group.layers), str(group.atoms), *shares)
    console.print(table)
    for kept in summary.protected:
        console.print(f"protected: {kept.layer}, {kept.channels} channels: {kept.reason}")
    for cause in (one for one in summary.causes if one.unread and summary.atoms):
        layers = coupled(cause.layers)
        console.print(f"not read: {layers}, {cause.macs_share:.1%} of the FLOPs: {cause.reason}")
    if not summary.atoms:
        print_causes(summary, console)
    console.print(
        f"dense: {summary.macs:,} MACs, {summary.params:,} params; lowest reachable: "
        f"{summary.lowest_macs:.2%} of the FLOPs, {summary.lowest_params:.2%} of the params"
    )


def print_causes(summary: Summary, console: Console) -> None:
    """Why no channel can be removed, the main causes first."""
    console.print("no channel can be removed; the main causes by their share of the FLOPs:")
    for cause in summary.causes[:MOST_CAUSES]:
        console.print(f"  {cause.macs_share:.1%} {cause.reason}: {coupled(cause.layers)}")
    if not summary.causes:
        console.print("  the network has no convolution and no linear layer with weights")


def coupled(layers: tuple[str, ...]) -> str:
    """The layers of a group, shortened past a few."""
    if len(layers) <= 4:
        return ", ".join(layers)
    return f"{', '.join(layers[:3])}, ... {len(layers) - 3} more"
