"""`paretoprune finetune`: the full fine-tune of a picked network; the same command goes on.

It works in DIR/finetune and changes the network, its recipe and its card only at the end. With
--out the result goes to another folder and DIR stays as it is.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from ...spaces.cost.cost import Price
from ...spaces.errors import UserError, as_called
from ...spaces.output_forms import PROBABILITIES, SCORES
from ...spaces.records.recipe import Figures, Recipe, read_recipe
from ...trainers.data.image_options import (
    options_in,
    told_augmentation,
    told_normalisation,
    with_options,
    with_recorded,
)
from ...trainers.data.sources.load import Data, load_data
from ...trainers.metrics.evaluate import Score
from ...trainers.models.export import FORMATS
from ...trainers.models.read_outputs import read_outputs
from ...trainers.pruning.serialization import (
    RECIPE,
    Loaded,
    load_network,
    load_teacher,
    named_model,
    tensors_of,
    versions,
)
from ...trainers.runtime.device import detect_machine
from ...trainers.training.checkpoint import weights_digest
from ...trainers.training.distillation import Teacher
from ...trainers.training.distributed import Team, joined
from ...trainers.training.finetune import Best, FullTune, tune
from ...trainers.training.loop import Diverged, Progress, Tuning
from ..driver.prepare import data_digest
from ..execution.signals import Stopped, Stopping
from ..results.model_card import counted, kept
from ..results.model_folder import publish, unwritable
from ..storage.run_folder import RunFolder, locked, not_there, remove_empty, take_back
from .finetune_request import (
    WORK,
    Asked,
    check_fits,
    check_target,
    finished,
    recorded_images,
    settings_of,
)
from .train_dense import progress_bar

DISTILL = 0.7  # where the dense network is there to teach


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What came from Python instead of by name."""

    model: nn.Module | None = None
    data: Data | None = None


def finetune_command(asked: Asked) -> int:
    """Fine-tune under a bar, show the figures, and return the exit code."""
    stopping, team = Stopping(), Team()
    try:
        with stopping.listening(), joined() as team:
            recipe = finetune_network(asked, Given(), team, quiet=not team.leads)
    except Stopped as stop:
        if team.leads:
            print(f"stopped; to go on: {asked.command(team.size)}")
        return stop.exit_code
    if team.leads:
        show(recipe, asked.target)
    return 0


def finetune_network(asked: Asked, given: Given, team: Team, *, quiet: bool) -> Recipe:
    """The recipe of the fine-tuned network, once its folder is written by the team's leader."""
    asked.check()
    recipe = read_recipe(asked.folder / RECIPE)
    model = given.model or named_model(asked.model, recipe)
    loaded = load_network(asked.folder, model)
    check_target(asked)
    data = given.data or load_data(asked.data)
    check_fits(data, recipe)
    for note in () if quiet else data.notes:
        print(note)
    data, lines = as_trained(data, asked, recipe)
    data, notes = outputs_read(asked, loaded, data)
    if not quiet:
        print("\n".join((*lines, *notes)))
    if asked.distill == 0 and asked.weights is not None and not quiet:
        print(as_called("--weights has no effect with --distill 0: nothing is distilled"))
    if asked.batch_size > len(data.train) and not quiet:
        held = f"--batch-size {asked.batch_size} is taken as {len(data.train)}, all of train"
        print(as_called(held))
    wanted_teacher = asked.distill is None or asked.distill > 0
    teacher = load_teacher(asked.folder, loaded, asked.weights, model) if wanted_teacher else None
    if asked.distill and teacher is None:
        raise UserError(
            "--distill needs the dense network's weights, got none beside the recipe; "
            "add --weights FILE"
        )
    if wanted_teacher and teacher is None and not quiet:
        said = "no distillation: the dense network is not beside the recipe; add --weights FILE"
        print(as_called(said))
    asked = replace(asked, distill=0.0 if teacher is None else asked.distill or DISTILL)
    done = finished(asked, data, team)
    if done is not None:
        if not quiet:
            said = "this fine-tune was finished before; another --epochs or --seed trains it on"
            print(as_called(said))
        return done
    with worked_in(asked.target / WORK, team):
        job = job_of(asked, loaded, data, teacher, team)
        return run_tune(job, asked, loaded, team, quiet=quiet)


def as_trained(data: Data, asked: Asked, recipe: Recipe) -> tuple[Data, tuple[str, str]]:
    """The data normalised and augmented as asked, else as the recipe says; two lines about it."""
    images, noted = asked.images(), recorded_images(recipe)
    data = with_options(with_recorded(data, noted), images)
    found = options_in(data)
    same = (noted.mean, noted.std) == (found.mean, found.std)
    return data, (
        told_normalisation(data, images, "the recipe" if same else None),
        told_augmentation(data, images, None if noted.augment is None else "the recipe"),
    )


def outputs_read(asked: Asked, loaded: Loaded, data: Data) -> tuple[Data, tuple[str, ...]]:
    """The data with what the network returns, by its recipe or by --outputs."""
    kept = loaded.recipe.source.outputs
    choice = asked.outputs or (SCORES if kept == SCORES else PROBABILITIES)
    data, notes = read_outputs(loaded.model, data, choice)
    if kept != SCORES and choice == PROBABILITIES:
        data = replace(data, outputs=replace(data.outputs, form=kept))
    return data, notes


@contextmanager
def worked_in(work: Path, team: Team) -> Iterator[None]:
    """Hold the work folder for one fine-tune; it is gone after a good end."""
    if not team.leads:
        yield
        return
    made = not_there(work)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(unwritable(work.parent, error)) from None
    with locked(RunFolder(work), what="fine-tune"):
        try:
            yield
        except UserError:
            if made:  # nothing that an earlier call left
                take_back(work)
                remove_empty(made)
            raise
    shutil.rmtree(work)


def job_of(
    asked: Asked, loaded: Loaded, data: Data, teacher: nn.Module | None, team: Team
) -> FullTune:
    """What the trainers are to do, and what must be the same again to go on."""
    tuning = Tuning(
        epochs=asked.epochs,
        learning_rate=asked.learning_rate,
        batch_size=asked.batch_size,
        distill=asked.distill or 0.0,
    )
    machine = detect_machine(loaded.model, data.input_shape)
    return FullTune(
        model=loaded.model,
        data=data,
        tuning=tuning,
        seed=asked.seed,
        teacher=None if teacher is None else Teacher(teacher, machine),
        machine=machine,
        work=asked.target / WORK,
        settings={
            "network": loaded.recipe.weights_sha256,
            "teacher": None if teacher is None else weights_digest(teacher),
            "data": data_digest(data),
            "std": list(data.std),
            "augment": data.augment,
            "epochs": tuning.epochs,
            "learning_rate": tuning.learning_rate,
            "batch_size": tuning.batch_size,
            "distill": tuning.distill,
            "seed": asked.seed,
            "processes": team.size,
            **({"outputs": data.outputs.form} if data.outputs.exact else {}),
            **{f"machine {name}": value for name, value in asdict(machine).items()},
        },
    )


def run_tune(job: FullTune, asked: Asked, loaded: Loaded, team: Team, *, quiet: bool) -> Recipe:
    """Train under a bar; the leader writes the folder."""
    if not quiet:
        taught = f", distilled with weight {asked.distill:g}" if asked.distill else ""
        rate = f"learning rate {asked.learning_rate:g}"
        begun = "going on with " if any(job.work.glob("*.safetensors")) else ""
        print(f"{begun}fine-tuning for {counted(asked.epochs)} at {rate}{taught}", flush=True)
    try:
        with progress_bar(quiet=quiet) as bar:

            def report(progress: Progress, best: Best) -> None:
                bar(progress, f", best {best.accuracy:.4f} (epoch {best.epoch:g})")

            best, test = tune(job, team, report)
    except Diverged as error:
        if team.leads:
            take_back(job.work)  # its session would lead there again
        said = str(error).partition(";")[0]
        raise UserError(f"{said}; begin again with a lower --learning-rate") from None
    weights = tensors_of(job.model)
    recipe = replace(
        loaded.recipe,
        source=replace(
            loaded.recipe.source,
            **asdict(options_in(job.data)),
            outputs=job.data.outputs.form,
            element=job.data.outputs.element,
        ),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        versions=versions(),
        figures=figures_after(loaded, best, test, asked),
        dense_sha256=loaded.recipe.dense_sha256 if asked.out is None else None,
        fine_tune=replace(
            settings_of(asked, job.data, team),
            best_epoch=best.epoch,
            accuracy_before=best.accuracy_before,
        ),
        earlier=loaded.recipe.fine_tunes,
    )
    if team.leads:
        try:
            publish(asked.target, recipe, weights)
        except OSError as error:
            raise UserError(unwritable(asked.target, error)) from None
    return recipe


def figures_after(loaded: Loaded, best: Best, test: Score | None, asked: Asked) -> Figures:
    """The figures of the network; its sizes are counted, since a trial's recipe lacks them."""
    price, before = Price(loaded.channel_map), loaded.recipe.figures
    macs, params = (int(count) for count in price.of(loaded.recipe.mask))
    return Figures(
        accuracy=best.accuracy,
        loss=best.loss,
        macs=macs,
        params=params,
        flops_fraction=macs / price.dense[0],
        params_fraction=params / price.dense[1],
        epochs=(before.epochs if before else 0.0) + asked.epochs,
        test_accuracy=None if test is None else test.accuracy,
        latency_ms=before.latency_ms if before else None,
    )


def show(recipe: Recipe, folder: Path) -> None:
    """What came of it."""
    done, figures = recipe.fine_tune, recipe.figures
    assert done is not None
    assert figures is not None
    test = "" if figures.test_accuracy is None else f", test {figures.test_accuracy:.4f}"
    print(
        f"validation accuracy {done.accuracy_before:.4f} -> {figures.accuracy:.4f}{test}; "
        f"kept: {kept(done)}" + (f" of {done.epochs:g}" if done.best_epoch else "")
    )
    for name in (f"model{ending}" for ending in FORMATS.values()):
        if done.best_epoch and (folder / name).exists():
            print(f"{name} holds the network as it was before: export it again")
    print(f"written to {folder}; its README.md has the lines that load it")
