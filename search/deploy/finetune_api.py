"""The Python interface to the full fine-tune: `finetune` and its result `Shipped`."""

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
    """A fine-tuned network and its recipe.

    Example:
        >>> shipped = pp.finetune("picked", data)
        >>> shipped.figures.accuracy
    """

    model: nn.Module
    """The network: a plain module in eval mode."""
    recipe: Recipe
    """The recipe: how the network was made, and its metrics."""
    folder: Path
    """The folder of the network."""
    widths: dict[str, int]
    """The number of kept output channels of each layer."""

    @property
    def policy(self) -> Policy:
        """The policy by which the network was pruned."""
        return self.recipe.policy

    @property
    def figures(self) -> RecipeMetrics | None:
        """The metrics of the network."""
        return self.recipe.figures

    def export(self, path: str | Path, *, to: str | None = None, batch: int | None = None) -> Path:
        """Export the network to torch.export or ONNX.

        The file is written only if it gives the outputs of the eager network.

        Args:
            path: the file to write.
            to: "torch" or "onnx"; by default, the suffix of `path` decides (.pt2 or .onnx).
            batch: a fixed batch size; by default, the batch size is dynamic.

        Returns:
            The path of the file.

        Raises:
            UserError: the suffix and `to` disagree, the file cannot be written, or the network
                cannot be exported.

        Example:
            >>> shipped.export("small.onnx")
        """
        return export_picked_model(self.model, self.recipe, Path(path), to=to, batch=batch)


def check_number_arguments(**values: object) -> None:
    """Raise a `UserError` for an argument that is no number. The command line's parser does so."""
    for name, value in values.items():
        if not matches_type(value, "float | None"):
            raise UserError(f"{name} must be a number, got {value!r}; write it without quotes")


def check_integer_arguments(**values: object) -> None:
    """Raise a `UserError` for an argument that is no integer."""
    for name, value in values.items():
        if not matches_type(value, "int"):
            raise UserError(f"{name} must be a whole number, got {value!r}; write 64")


def check_network(model: object) -> None:
    """Raise a `UserError` unless the model is a module: names are for the command line."""
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
    """Fine-tune a picked network in full.

    The weights of best validation accuracy are kept, and the test split is read once, at the end.
    A second call with the same arguments continues a stopped one.

    Args:
        path: the folder of a picked network.
        data: the data, as in `search`.
        epochs: the epochs to train; fractions are allowed.
        distill: the weight of the distillation loss, in [0, 1]; by default 0.7 if the weights of
            the dense network are available, else 0.
        learning_rate: the peak of the cosine learning rate.
        batch_size: the batch size, summed over all processes.
        seed: the seed of all randomness.
        weights: a file with the weights of the dense network to distill from; by default, those
            in the folder.
        model: the dense network, if no name rebuilds it.
        out: a new folder for the result; by default, it replaces the network in `path`.
        mean: the mean of the normalisation, as in `search`; by default, as the recipe states.
        std: the standard deviation that belongs to `mean`.
        augment: the augmentation, as in `search`; by default, as the recipe states.
        outputs: "scores" or "probabilities", if the network does not return what it returned
            when it was pruned.
        quiet: print nothing.

    Returns:
        The fine-tuned network and its recipe.

    Raises:
        UserError: an argument, the folder or the data cannot be used, or the training diverged.

    Example:
        >>> shipped = pp.finetune("picked", (train, validation, test), epochs=40)
        >>> shipped.export("small.onnx")
    """
    check_number_arguments(epochs=epochs, distill=distill, learning_rate=learning_rate)
    check_integer_arguments(batch_size=batch_size, seed=seed)
    if model is not None:
        check_network(model)
    request = FineTuneRequest(
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
    inputs = FineTuneInputs(
        model, None if isinstance(data, str) else convert_user_data(data, seed=0)
    )
    with init_process_group() as process_group:
        finetune_network(
            request, inputs, process_group, quiet=quiet or not process_group.is_leader
        )
    loaded = load_network(request.result_folder, model)
    return Shipped(loaded.model, loaded.recipe, request.result_folder, loaded.widths)
