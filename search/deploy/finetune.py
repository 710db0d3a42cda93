"""`paretoprune finetune`: the full fine-tune of a picked network, resumably.

It works in DIR/finetune and replaces the network, its recipe and its card only at the end. With
--out it writes the result to another folder and leaves DIR unchanged.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from ...spaces.cost.cost import CostModel
from ...spaces.errors import UserError, as_called
from ...spaces.output_forms import PROBABILITIES, SCORES
from ...spaces.records.recipe import Recipe, RecipeMetrics, read_recipe
from ...trainers.data.image_options import (
    describe_augmentation,
    describe_normalisation,
    options_in,
    with_options,
    with_recorded,
)
from ...trainers.data.sources.load import load_data
from ...trainers.data.splits import DataSplits
from ...trainers.metrics.evaluate import ClassificationMetrics
from ...trainers.models.export import EXPORT_SUFFIXES
from ...trainers.models.read_outputs import read_outputs
from ...trainers.pruning.serialization import (
    RECIPE_FILE,
    LoadedNetwork,
    build_user_model,
    load_network,
    load_teacher,
    software_versions,
    to_safetensors_bytes,
)
from ...trainers.runtime.device import detect_device_config
from ...trainers.training.checkpoint import weights_digest
from ...trainers.training.distillation import Teacher
from ...trainers.training.distributed import ProcessGroup, init_process_group
from ...trainers.training.finetune import BestWeights, FineTuneJob, run_fine_tune
from ...trainers.training.loop import TrainingProgress
from ...trainers.training.optimizer import TrainingSettings
from ...trainers.training.session import TrainingDivergedError
from ..driver.prepare import data_digest
from ..execution.signals import SignalHandler, StopRequested
from ..results.model_card import describe_kept_weights, format_epochs
from ..results.model_folder import unwritable_folder_message, write_network_and_card
from ..storage.run_folder import RunFolder, lock_run, not_there, remove_empty, take_back
from .finetune_request import (
    FINETUNE_WORK_FOLDER,
    FineTuneRequest,
    check_data_matches,
    check_result_folder,
    fine_tune_record,
    finished_recipe,
    recorded_images,
)
from .train_command import training_progress_bar

DEFAULT_DISTILL_WEIGHT = 0.7  # if the weights of the dense network are available


@dataclass(frozen=True, slots=True, eq=False)
class FineTuneInputs:
    """The model and the data if they were passed as objects, not as names."""

    model: nn.Module | None = None
    data: DataSplits | None = None


def finetune_command(request: FineTuneRequest) -> int:
    """Run `paretoprune finetune`: train, print the metrics, return the exit code."""
    signals, process_group = SignalHandler(), ProcessGroup()
    try:
        with signals.installed(), init_process_group() as process_group:
            recipe = finetune_network(
                request, FineTuneInputs(), process_group, quiet=not process_group.is_leader
            )
    except StopRequested as stop:
        if process_group.is_leader:
            print(f"stopped; to continue: {request.command(process_group.size)}")
        return stop.exit_code
    if process_group.is_leader:
        print_fine_tune(recipe, request.result_folder)
    return 0


def finetune_network(
    request: FineTuneRequest, inputs: FineTuneInputs, process_group: ProcessGroup, *, quiet: bool
) -> Recipe:
    """Fine-tune a network, write its folder in the leading process and return its recipe."""
    request.check()
    recipe = read_recipe(request.folder / RECIPE_FILE)
    model = inputs.model or build_user_model(request.model, recipe)
    loaded = load_network(request.folder, model)
    check_result_folder(request)
    data = inputs.data or load_data(request.data)
    check_data_matches(data, recipe)
    for note in () if quiet else data.notes:
        print(note)
    data, lines = as_trained(data, request, recipe)
    data, notes = outputs_read(request, loaded, data)
    if not quiet:
        print("\n".join((*lines, *notes)))
    if request.distill == 0 and request.weights is not None and not quiet:
        print(as_called("--weights has no effect with --distill 0"))
    if request.batch_size > len(data.train) and not quiet:
        size = f"--batch-size {request.batch_size} is reduced to {len(data.train)}, all of train"
        print(as_called(size))
    wanted_teacher = request.distill is None or request.distill > 0
    teacher = (
        load_teacher(request.folder, loaded, request.weights, model) if wanted_teacher else None
    )
    if request.distill and teacher is None:
        raise UserError(
            "--distill needs the dense network's weights, got a folder without them; "
            "add --weights FILE"
        )
    if wanted_teacher and teacher is None and not quiet:
        note = "no distillation: the folder has no dense weights; add --weights FILE"
        print(as_called(note))
    request = replace(
        request, distill=0.0 if teacher is None else request.distill or DEFAULT_DISTILL_WEIGHT
    )
    done = finished_recipe(request, data, process_group)
    if done is not None:
        if not quiet:
            note = "this fine-tune was finished before; change --epochs or --seed to train further"
            print(as_called(note))
        return done
    with locked_work_folder(request.result_folder / FINETUNE_WORK_FOLDER, process_group):
        job = build_fine_tune_job(request, loaded, data, teacher, process_group)
        return run_fine_tune_job(job, request, loaded, process_group, quiet=quiet)


def as_trained(
    data: DataSplits, request: FineTuneRequest, recipe: Recipe
) -> tuple[DataSplits, tuple[str, str]]:
    """Normalise and augment the data as requested, else as recorded; return notes about both."""
    images, recorded = request.images(), recorded_images(recipe)
    data = with_options(with_recorded(data, recorded), images)
    found = options_in(data)
    same = (recorded.mean, recorded.std) == (found.mean, found.std)
    return data, (
        describe_normalisation(data, images, "the recipe" if same else None),
        describe_augmentation(data, images, None if recorded.augment is None else "the recipe"),
    )


def outputs_read(
    request: FineTuneRequest, loaded: LoadedNetwork, data: DataSplits
) -> tuple[DataSplits, tuple[str, ...]]:
    """Return the data with the form of the network's outputs, and notes about it."""
    recorded = loaded.recipe.source.outputs
    choice = request.outputs or (SCORES if recorded == SCORES else PROBABILITIES)
    data, notes = read_outputs(loaded.model, data, choice)
    if recorded != SCORES and choice == PROBABILITIES:
        data = replace(data, outputs=replace(data.outputs, form=recorded))
    return data, notes


@contextmanager
def locked_work_folder(work: Path, process_group: ProcessGroup) -> Iterator[None]:
    """Lock the work folder for one fine-tune and delete it after success."""
    if not process_group.is_leader:
        yield
        return
    created = not_there(work)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(unwritable_folder_message(work.parent, error)) from None
    with lock_run(RunFolder(work), what="fine-tune"):
        try:
            yield
        except UserError:
            if created:  # an earlier call left nothing here
                take_back(work)
                remove_empty(created)
            raise
    shutil.rmtree(work)


def build_fine_tune_job(
    request: FineTuneRequest,
    loaded: LoadedNetwork,
    data: DataSplits,
    teacher: nn.Module | None,
    process_group: ProcessGroup,
) -> FineTuneJob:
    """Return the training, with the settings that must be equal to continue it."""
    tuning = TrainingSettings(
        epochs=request.epochs,
        learning_rate=request.learning_rate,
        batch_size=request.batch_size,
        distill=request.distill or 0.0,
    )
    device_config = detect_device_config(loaded.model, data.input_shape)
    return FineTuneJob(
        model=loaded.model,
        data=data,
        tuning=tuning,
        seed=request.seed,
        teacher=None if teacher is None else Teacher(teacher, device_config),
        machine=device_config,
        work_folder=request.result_folder / FINETUNE_WORK_FOLDER,
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
            "seed": request.seed,
            "processes": process_group.size,
            **({"outputs": data.outputs.form} if data.outputs.exact else {}),
            **{f"machine {name}": value for name, value in asdict(device_config).items()},
        },
    )


def run_fine_tune_job(
    job: FineTuneJob,
    request: FineTuneRequest,
    loaded: LoadedNetwork,
    process_group: ProcessGroup,
    *,
    quiet: bool,
) -> Recipe:
    """Train with a progress bar and write the folder in the leading process."""
    if not quiet:
        distilled = f", distilled with weight {request.distill:g}" if request.distill else ""
        rate = f"learning rate {request.learning_rate:g}"
        resumed = "continuing: " if any(job.work_folder.glob("*.safetensors")) else ""
        print(
            f"{resumed}fine-tuning for {format_epochs(request.epochs)} at {rate}{distilled}",
            flush=True,
        )
    try:
        with training_progress_bar(quiet=quiet) as bar:

            def report(progress: TrainingProgress, best: BestWeights) -> None:
                bar(progress, f", best {best.accuracy:.4f} (epoch {best.epoch:g})")

            best, test = run_fine_tune(job, process_group, report)
    except TrainingDivergedError as error:
        if process_group.is_leader:
            take_back(job.work_folder)  # its checkpoint would diverge again
        reason = str(error).partition(";")[0]
        raise UserError(f"{reason}; start again with a lower --learning-rate") from None
    weights = to_safetensors_bytes(job.model)
    recipe = replace(
        loaded.recipe,
        source=replace(
            loaded.recipe.source,
            **asdict(options_in(job.data)),
            outputs=job.data.outputs.form,
            element=job.data.outputs.element,
        ),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        versions=software_versions(),
        figures=fine_tuned_metrics(loaded, best, test, request),
        dense_sha256=loaded.recipe.dense_sha256 if request.out is None else None,
        fine_tune=replace(
            fine_tune_record(request, job.data, process_group),
            best_epoch=best.epoch,
            accuracy_before=best.accuracy_before,
        ),
        earlier=loaded.recipe.fine_tunes,
    )
    if process_group.is_leader:
        try:
            write_network_and_card(request.result_folder, recipe, weights)
        except OSError as error:
            raise UserError(unwritable_folder_message(request.result_folder, error)) from None
    return recipe


def fine_tuned_metrics(
    loaded: LoadedNetwork,
    best: BestWeights,
    test: ClassificationMetrics | None,
    request: FineTuneRequest,
) -> RecipeMetrics:
    """Return the metrics of the network. Its sizes are counted: a trial's recipe lacks them."""
    cost_model, before = CostModel(loaded.channel_map), loaded.recipe.figures
    macs, params = (int(count) for count in cost_model.cost_of(loaded.recipe.mask))
    return RecipeMetrics(
        accuracy=best.accuracy,
        loss=best.loss,
        macs=macs,
        params=params,
        flops_fraction=macs / cost_model.dense[0],
        params_fraction=params / cost_model.dense[1],
        epochs=(before.epochs if before else 0.0) + request.epochs,
        test_accuracy=None if test is None else test.accuracy,
        latency_ms=before.latency_ms if before else None,
    )


def print_fine_tune(recipe: Recipe, folder: Path) -> None:
    """Print the metrics before and after, and where the network is."""
    done, metrics = recipe.fine_tune, recipe.figures
    assert done is not None
    assert metrics is not None
    test = "" if metrics.test_accuracy is None else f", test {metrics.test_accuracy:.4f}"
    print(
        f"validation accuracy {done.accuracy_before:.4f} -> {metrics.accuracy:.4f}{test}; "
        f"kept: {describe_kept_weights(done)}"
        + (f" of {done.epochs:g}" if done.best_epoch else "")
    )
    for name in (f"model{suffix}" for suffix in EXPORT_SUFFIXES.values()):
        if done.best_epoch and (folder / name).exists():
            print(f"{name} still has the network from before: export it again")
    print(f"written to {folder}; its README.md shows how to load it")
