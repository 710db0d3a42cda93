"""What `paretoprune finetune` is asked for: its rules, and whether it was done before."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ...spaces.errors import UserError
from ...spaces.output_forms import CHOICES
from ...spaces.policy.policy import check_choice
from ...spaces.records.recipe import FineTune, Recipe, data_named, read_recipe
from ...trainers.data.image_options import ImageOptions, image_options, options_in
from ...trainers.data.sources.load import Data
from ...trainers.pruning.serialization import NEXT, PICKED, RECIPE
from ...trainers.training.distributed import Team
from ..driver.prepare import data_digest, weights_exist
from ..results.model_folder import unwritable

WORK = "finetune"  # below the result: the session and the best weights so far


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

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
    outputs: str | None = None  # None: as the recipe says

    @property
    def target(self) -> Path:
        """Where the result goes."""
        return self.folder if self.out is None else self.out

    def check(self) -> None:
        """Refuse what could not be trained."""
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
        weights_exist(self.weights)
        self.images()
        if self.outputs is not None:
            check_choice("--outputs", self.outputs, CHOICES)

    def images(self) -> ImageOptions:
        """--mean, --std and --augment."""
        return image_options(self.mean, self.std, self.augment)

    def command(self, processes: int = 1) -> str:
        """The line that asks for the same again."""
        words = ["paretoprune", "finetune", str(self.folder)]
        if processes > 1:
            words[:1] = ["torchrun", "...", "-m", "paretoprune"]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default:
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                words += [f"--{field.name.replace('_', '-')}", shown]
        return shlex.join(words)


def check_target(asked: Asked) -> None:
    """A trial's own folder is part of its run and stays; --out must be new or begun by this."""
    if asked.out is None:
        if not (asked.folder / PICKED).is_file() and not (asked.folder / NEXT).is_file():
            raise UserError(
                f"DIR must be a picked network's folder, got {asked.folder} without {PICKED}; "
                "pick it first, or name another folder with --out"
            )
        return
    begun = asked.out / WORK
    try:
        there = os.path.isdir(asked.out)
        busy = there and any(path != begun for path in asked.out.iterdir())
    except OSError as error:
        raise UserError(unwritable(asked.out, error)) from None
    if busy and not (asked.out / RECIPE).is_file():
        raise UserError(f"--out must be an empty folder, got {asked.out}; name a new one")


def check_fits(data: Data, recipe: Recipe) -> None:
    """The data must be of the kind that the network was made for."""
    found = (data.classes, tuple(data.input_shape))
    wanted = (recipe.source.classes, recipe.source.input_shape)
    if found != wanted:
        raise UserError(
            f"--data must have {wanted[0]} classes of shape {wanted[1]}, got {found[0]} of "
            f"{found[1]}; name the data that the network was made for"
        )


def settings_of(asked: Asked, data: Data, team: Team) -> FineTune:
    """What the recipe will say of this fine-tune; its outcome is not known yet."""
    return FineTune(
        data=data_named(data.name),
        epochs=asked.epochs,
        learning_rate=asked.learning_rate,
        batch_size=asked.batch_size,
        distill=asked.distill or 0.0,
        seed=asked.seed,
        processes=team.size,
        best_epoch=0.0,
        accuracy_before=0.0,
        data_sha256=data_digest(data),
    )


def recorded_images(recipe: Recipe) -> ImageOptions:
    """What the recipe says of normalisation and augmentation; older ones say less."""
    source = recipe.source
    return ImageOptions(source.mean or None, source.std or None, source.augment)


def images_as_in(recipe: Recipe, data: Data) -> bool:
    """True if the data are normalised and augmented as the recipe says, where it says it."""
    noted, found = recorded_images(recipe), options_in(data)
    return all(
        getattr(noted, name) in (None, getattr(found, name)) for name in ("mean", "std", "augment")
    )


def finished(asked: Asked, data: Data, team: Team) -> Recipe | None:
    """The recipe of a fine-tune with these settings that came to its end, tidied up."""
    if not (asked.target / RECIPE).is_file():
        return None
    recipe = read_recipe(asked.target / RECIPE)
    past = recipe.fine_tune
    same = past is not None and recipe.source.outputs == data.outputs.form
    if (
        past is None
        or not same
        or replace(past, best_epoch=0.0, accuracy_before=0.0) != settings_of(asked, data, team)
        or not images_as_in(recipe, data)
    ):
        if asked.out is not None:
            raise UserError(
                f"--out must be an empty folder, or that of the same command, got {asked.out}; "
                "name a new one"
            )
        return None
    work = asked.target / WORK
    if team.leads and work.exists():  # killed between the recipe and the end
        if (asked.target / NEXT).is_file():
            (asked.target / NEXT).replace(asked.target / PICKED)
        shutil.rmtree(work)
    return recipe
