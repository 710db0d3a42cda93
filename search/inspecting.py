"""`paretoprune inspect`: what of a network can be removed, and what it costs. No data, no training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from rich.console import Console

from ..spaces.errors import UserError
from ..spaces.price import Price
from ..spaces.summary import summarise
from ..spaces.trace import trace_channels
from ..spaces.working_copy import working_copy
from ..trainers.models import build_model


@dataclass(frozen=True, slots=True)
class Inspection:
    """What to inspect."""

    model: str
    input_shape: str
    classes: int
    keep: tuple[str, ...]
    min_channels: int
    as_json: bool


def inspect_network(asked: Inspection) -> None:
    """Build, trace, price and print."""
    shape = parse_shape(asked)
    classes = asked.classes or (1000 if asked.model.startswith("torchvision:") else 10)
    model, notes = working_copy(
        build_model(asked.model, classes=classes, input_shape=shape, seed=0)
    )
    channel_map = trace_channels(model, shape, keep=asked.keep)
    summary = summarise(channel_map, Price(channel_map), min_channels=asked.min_channels)
    if asked.as_json:
        print(json.dumps({"schema": 1, "notes": list(notes), **asdict(summary)}, indent=2))
        return
    console = Console(highlight=False)
    for note in notes:
        console.print(note)
    print_summary(summary, console)


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
