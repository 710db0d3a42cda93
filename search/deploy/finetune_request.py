"""The request of `paretoprune finetune`: its checks and whether it was finished before."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ...spaces.errors import UserError
from ...spaces.output_forms import CHOICES
from ...spaces.policy.policy import check_choice
from ...spaces.records.recipe import FineTuneRecord, Recipe, portable_data_name, read_recipe
from ...trainers.data.image_options import ImageOptions, image_options, options_in
from ...trainers.data.splits import DataSplits
from ...trainers.pruning.serialization import NEXT_WEIGHTS_FILE, PICKED_WEIGHTS_FILE, RECIPE_FILE
from ...trainers.training.distributed import ProcessGroup
from ..driver.prepare import check_weights_file, data_digest
from ..results.model_folder import unwritable_folder_message

FINETUNE_WORK_FOLDER = "finetune"  # in the result folder: checkpoint and best weights


@dataclass(frozen=True, slots=True)
class FineTuneRequest:
    """The options of `paretoprune finetune`."""

    folder: Path
    data: str
    epochs: float = 40.0
    distill: float | None = None
    learning_rate: float = 0.02
    batch_size: int = 128
    seed: int = 0
    weights: Path | None = None
    model: str | None = None
    out: Path | None = None
    mean: str | None = None
    std: str | None = None
    augment: str | None = None
    outputs: str | None = None  # None: as the recipe states

    @property
    def result_folder(self) -> Path:
        """The folder of the result."""
        return self.folder if self.out is None else self.out

    def check(self) -> None:
        """Raise a `UserError` if an option is out of range."""
        rules = (
            ("--epochs", self.epochs, 0 < self.epochs < 1e6, "above 0 and below 1e6; 40 is usual"),
            ("--learning-rate", self.learning_rate, 0 < self.learning_rate < 10,
             "in (0, 10); 0.02 is usual"),
            ("--batch-size", self.batch_size, self.batch_size >= 2, "at least 2; 128 is usual"),
            ("--seed", self.seed, self.seed >= 0, "at least 0; write 0"),
            ("--distill", self.distill, self.distill is None or 0 <= self.distill <= 1,
             "in [0, 1]; 0.7 is usual"),
        )  # fmt: skip
        for name, value, holds, rule in rules:
            if not holds:
                bound, _, remedy = rule.partition("; ")
                raise UserError(f"{name} must be {bound}, got {value}; {remedy}")
        check_weights_file(self.weights)
        self.images()
        if self.outputs is not None:
            check_choice("--outputs", self.outputs, CHOICES)

    def images(self) -> ImageOptions:
        """Parse --mean, --std and --augment."""
        return image_options(self.mean, self.std, self.augment)

    def command(self, processes: int = 1) -> str:
        """Return the command line of this request."""
        words = ["paretoprune", "finetune", str(self.folder)]
        if processes > 1:
            words[:1] = ["torchrun", "...", "-m", "paretoprune"]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                words += [f"--{field.name.replace('_', '-')}", shown]
        return shlex.join(words)


def check_result_folder(request: FineTuneRequest) -> None:
    """Raise a `UserError` if the result folder is a trial's folder or has other files.

    A trial's folder is part of its run. --out may hold what an earlier fine-tune left.
    """
    if request.out is None:
        if (
            not (request.folder / PICKED_WEIGHTS_FILE).is_file()
            and not (request.folder / NEXT_WEIGHTS_FILE).is_file()
        ):
            raise UserError(
                f"DIR must be a picked network's folder, got {request.folder} without "
                f"{PICKED_WEIGHTS_FILE}; pick it first, or write to another folder with --out"
            )
        return
    work = request.out / FINETUNE_WORK_FOLDER
    try:
        exists = os.path.isdir(request.out)
        has_files = exists and any(path != work for path in request.out.iterdir())
    except OSError as error:
        raise UserError(unwritable_folder_message(request.out, error)) from None
    if has_files and not (request.out / RECIPE_FILE).is_file():
        raise UserError(f"--out must be an empty folder, got {request.out}; use a new one")


def check_data_matches(data: DataSplits, recipe: Recipe) -> None:
    """Raise a `UserError` if the classes or the input shape differ from those of the network."""
    found = (data.classes, tuple(data.input_shape))
    wanted = (recipe.source.classes, recipe.source.input_shape)
    if found != wanted:
        raise UserError(
            f"--data must have {wanted[0]} classes of shape {wanted[1]}, got {found[0]} of "
            f"{found[1]}; use data like those that the network was pruned for"
        )


def fine_tune_record(
    request: FineTuneRequest, data: DataSplits, process_group: ProcessGroup
) -> FineTuneRecord:
    """Return the record of this fine-tune for the recipe, still without its outcome."""
    return FineTuneRecord(
        data=portable_data_name(data.name),
        epochs=request.epochs,
        learning_rate=request.learning_rate,
        batch_size=request.batch_size,
        distill=request.distill or 0.0,
        seed=request.seed,
        processes=process_group.size,
        best_epoch=0.0,
        accuracy_before=0.0,
        data_sha256=data_digest(data),
    )


def recorded_images(recipe: Recipe) -> ImageOptions:
    """Return the recipe's normalisation and augmentation; None where an older recipe lacks it."""
    source = recipe.source
    return ImageOptions(source.mean or None, source.std or None, source.augment)


def images_as_in(recipe: Recipe, data: DataSplits) -> bool:
    """Return whether the data have the normalisation and augmentation that the recipe states."""
    recorded, found = recorded_images(recipe), options_in(data)
    return all(
        getattr(recorded, name) in (None, getattr(found, name))
        for name in ("mean", "std", "augment")
    )


def finished_recipe(
    request: FineTuneRequest, data: DataSplits, process_group: ProcessGroup
) -> Recipe | None:
    """Return the recipe if a fine-tune with these settings was finished before, else None.

    It also completes a fine-tune that was killed between its recipe and its end.

    Raises:
        UserError: --out holds the result of another fine-tune.
    """
    if not (request.result_folder / RECIPE_FILE).is_file():
        return None
    recipe = read_recipe(request.result_folder / RECIPE_FILE)
    past = recipe.fine_tune
    same = past is not None and recipe.source.outputs == data.outputs.form
    if (
        past is None
        or not same
        or replace(past, best_epoch=0.0, accuracy_before=0.0)
        != fine_tune_record(request, data, process_group)
        or not images_as_in(recipe, data)
    ):
        if request.out is not None:
            raise UserError(
                "--out must be an empty folder or one that the same command wrote, got "
                f"{request.out}; use a new one"
            )
        return None
    work = request.result_folder / FINETUNE_WORK_FOLDER
    if (
        process_group.is_leader and work.exists()
    ):  # it was killed between writing the recipe and its end
        if (request.result_folder / NEXT_WEIGHTS_FILE).is_file():
            (request.result_folder / NEXT_WEIGHTS_FILE).replace(
                request.result_folder / PICKED_WEIGHTS_FILE
            )
        shutil.rmtree(work)
    return recipe
