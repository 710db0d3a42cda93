"""The Python interface to what comes after the front: the full fine-tune, and its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ...spaces.errors import UserError
from ...spaces.io.validation import matches_type, short_repr
from ...spaces.policy.policy import Policy
from ...spaces.records.recipe import Recipe, RecipeMetrics
from ...trainers.data.sources.user import convert_user_data
from ...trainers.pruning.serialization import load_network
from ...trainers.training.distributed import init_process_group
from ..config.settings_parsing import parse_setting
from .export import export_picked_model
from .finetune import FineTuneInputs, finetune_network
from .finetune_request import FineTuneRequest


@dataclass(frozen=True, slots=True, eq=False)
class Shipped:
    """A network in a picked folder, and what its recipe says of it."""

    model: nn.Module  # a plain module, already smaller, in eval mode
    recipe: Recipe
    folder: Path
    widths: dict[str, int]  # kept output channels of each layer

    @property
    def policy(self) -> Policy:
        """How the network was pruned."""
        return self.recipe.policy

    @property
    def figures(self) -> RecipeMetrics | None:
        """What was measured of it."""
        return self.recipe.figures

    def export(self, path: str | Path, *, to: str | None = None, batch: int | None = None) -> Path:
        """Write the network as .pt2 or .onnx once the file agrees with eager; `batch` fixes it."""
        return export_picked_model(self.model, self.recipe, Path(path), to=to, batch=batch)


def check_number_arguments(**values: object) -> None:
    """The command line's parser sees to that; from Python anything may come."""
    for name, value in values.items():
        if not matches_type(value, "float | None"):
            raise UserError(f"{name} must be a number, got {value!r}; write it without quotes")


def check_whole(**values: object) -> None:
    """Refuse 64.5 and "64", which would be taken for something else."""
    for name, value in values.items():
        if not matches_type(value, "int"):
            raise UserError(f"{name} must be a whole number, got {value!r}; write 64")


def check_network(model: object) -> None:
    """Refuse a name, which is built on the command line only."""
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model must be the dense network itself, got {short_repr(model)}; build it, pass that"
        )


def finetune(
    path: str | Path,
    data: object,
    *,
    epochs: float = 40.0,
    distill: float | None = None,
    learning_rate: float = 0.02,
    batch_size: int = 128,
    seed: int = 0,
    weights: str | Path | None = None,
    model: nn.Module | None = None,
    out: str | Path | None = None,
    mean: float | str | Sequence[float] | None = None,
    std: float | str | Sequence[float] | None = None,
    augment: str | None = None,
    outputs: str | None = None,
    quiet: bool = False,
) -> Shipped:
    """Fine-tune the network in a picked folder, in full; the same call goes on after a stop.

    `data` as of `search`; `model`: the dense network where no name rebuilds it; `weights`: a file
    of the dense network to distill from, where the folder has none; `out`: a new folder for the
    result, which otherwise replaces the network in `path`; `mean`, `std` and `augment` as of
    `search`, the recipe's where they are left out; `outputs`: scores or probabilities,
    where the network does not return what it returned when it was pruned.
    """
    check_number_arguments(epochs=epochs, distill=distill, learning_rate=learning_rate)
    check_whole(batch_size=batch_size, seed=seed)
    if model is not None:
        check_network(model)
    asked = FineTuneRequest(
        folder=Path(path),
        data=data if isinstance(data, str) else "",
        epochs=epochs,
        distill=distill,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        weights=None if weights is None else Path(weights),
        out=None if out is None else Path(out),
        mean=parse_setting("mean", mean, "finetune"),
        std=parse_setting("std", std, "finetune"),
        augment=augment,
        outputs=outputs,
    )
    given = FineTuneInputs(
        model, None if isinstance(data, str) else convert_user_data(data, seed=0)
    )
    with init_process_group() as team:
        finetune_network(asked, given, team, quiet=quiet or not team.is_leader)
    loaded = load_network(asked.result_folder, model)
    return Shipped(loaded.model, loaded.recipe, asked.result_folder, loaded.widths)
