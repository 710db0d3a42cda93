"""`paretoprune inspect`: the groups of a network that can be pruned, and their cost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from ...spaces.allocations.decode import PruningSpace
from ...spaces.cost.cost import CostModel
from ...spaces.cost.summary import NetworkSummary, summarize_network
from ...spaces.errors import UserError
from ...spaces.graph.trace import trace_channel_map
from ...spaces.graph.working_copy import make_working_copy
from ...trainers.models.build import build_model
from ..config.settings import check_at_least

MAX_CAUSES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class InspectionRequest:
    """The options of `paretoprune inspect`."""

    model: str
    input_shape: str
    classes: int
    keep: tuple[str, ...]
    as_json: bool


def inspect_network(request: InspectionRequest, *, min_channels: int, round_to: int) -> None:
    """Build the network, trace its channel map, and print its groups and their cost.

    Args:
        request: The model, its input shape and classes, layers to keep, and the output format.
        min_channels: Channels that stay in every group.
        round_to: The number of channels of a group stays a multiple of this.

    Raises:
        UserError: an option is out of range, or the network cannot be built or traced.

    Example:
        >>> request = InspectionRequest("digits-resnet", "", 0, (), as_json=False)
        >>> inspect_network(request, min_channels=1, round_to=1)  # doctest: +SKIP
    """
    check_at_least("--min-channels", min_channels, 1)
    check_at_least("--round-to", round_to, 1)
    check_at_least("--classes", request.classes, 0)
    shape = parse_input_shape(request)
    classes = request.classes or (1000 if request.model.startswith("torchvision:") else 10)
    model, notes = make_working_copy(
        build_model(request.model, classes=classes, input_shape=shape, seed=0, any_task=True)
    )
    channel_map = trace_channel_map(model, shape, keep=request.keep)
    space = PruningSpace(channel_map, CostModel(channel_map), min_channels, round_to)
    summary = summarize_network(channel_map, space.cost_model, lowest=space.min_cost())
    notes = (*default_notes(request, shape, classes), *notes)
    if request.as_json:
        print(json.dumps({"schema": 1, "notes": list(notes), **asdict(summary)}, indent=2))
        return
    console = Console(highlight=False)
    for note in notes:
        console.print(note)
    print_network_summary(summary, console)


def default_notes(request: InspectionRequest, shape: tuple[int, ...], classes: int) -> list[str]:
    """Return a line for each option that was left out, with its default."""
    notes = []
    if not request.input_shape:
        notes.append(f"--input defaults to {','.join(map(str, shape))}")
    if not request.classes:
        notes.append(f"--classes defaults to {classes}")
    return notes


def parse_input_shape(request: InspectionRequest) -> tuple[int, ...]:
    """Parse --input; without it, return the default for the model."""
    if not request.input_shape:
        if request.model.startswith("torchvision:"):
            return (3, 224, 224)
        return (1, 8, 8) if request.model.startswith("digits") else (3, 32, 32)
    try:
        shape = tuple(int(part) for part in request.input_shape.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UserError(
            f"--input must be sizes above 0, got {request.input_shape!r}; write 3,224,224"
        )
    return shape


def print_network_summary(summary: NetworkSummary, console: Console) -> None:
    """Print the groups, the layers that are protected or not traced and why, and the totals."""
    table = Table(title=f"{len(summary.groups)} groups, {summary.atoms} atoms")
    table.add_column("group")
    table.add_column("coupled layers", overflow="fold")
    for heading in ("atoms", "FLOPs %", "params %"):
        table.add_column(heading, justify="right")
    for group in summary.groups:
        shares = (f"{100 * group.macs_share:.1f}", f"{100 * group.params_share:.1f}")
        table.add_row(group.name, format_layers(group.layers), str(group.atoms), *shares)
    console.print(table)
    for layer in summary.protected:
        console.print(f"protected: {layer.layer}, {layer.channels} channels: {layer.reason}")
    for cause in (one for one in summary.causes if one.unread and summary.atoms):
        layers = format_layers(cause.layers)
        console.print(f"not read: {layers}, {cause.macs_share:.1%} of the FLOPs: {cause.reason}")
    if not summary.atoms:
        print_causes(summary, console)
    console.print(
        f"dense: {summary.macs:,} MACs, {summary.params:,} params; lowest reachable: "
        f"{summary.lowest_macs:.2%} of the FLOPs, {summary.lowest_params:.2%} of the params"
    )


def print_causes(summary: NetworkSummary, console: Console) -> None:
    """Print why no channel can be removed, the main causes first."""
    console.print("no channel can be removed; the main causes by their share of the FLOPs:")
    for cause in summary.causes[:MAX_CAUSES_SHOWN]:
        console.print(f"  {cause.macs_share:.1%} {cause.reason}: {format_layers(cause.layers)}")
    if not summary.causes:
        console.print("  the network has no convolution and no linear layer with weights")


def format_layers(layers: tuple[str, ...]) -> str:
    """Return the layers of a group as text, shortened if there are more than four."""
    if len(layers) <= 4:
        return ", ".join(layers)
    return f"{', '.join(layers[:3])}, ... {len(layers) - 3} more"
