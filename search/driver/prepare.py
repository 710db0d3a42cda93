"""The steps before the first trial: load and check inputs, dense model, measurements."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from ...analysis.jobs import single_call_job
from ...analysis.measure import (
    MeasurementContext,
    RunJobs,
    check_score_exists,
    measure_for_policies,
)
from ...analysis.scores.measure import load_or_measure_scores
from ...spaces.allocations.decode import PruningSpace
from ...spaces.cost.cost import CostModel
from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap, channel_map_digest
from ...spaces.graph.layout import build_layout
from ...spaces.graph.trace import trace_channel_map
from ...spaces.graph.working_copy import make_working_copy
from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.io.bounded_read import read_json
from ...spaces.policy.policy import Policy
from ...spaces.records.pareto_front import DenseMetrics
from ...spaces.records.recipe import ModelSource, portable_data_name
from ...trainers.data.batches import fixed_subset
from ...trainers.data.image_options import (
    ImageOptions,
    chance_warning,
    check_for_source,
    describe_augmentation,
    describe_normalisation,
    with_options,
)
from ...trainers.data.sources.load import load_data
from ...trainers.data.splits import DataSplits
from ...trainers.models.build import check_model_output, surplus_notes
from ...trainers.models.read_outputs import read_outputs
from ...trainers.models.weights import check_finite
from ...trainers.runtime.device import DeviceConfig
from ...trainers.training.distillation import LOGITS_CACHE_BYTES, Teacher
from ..config.settings import SearchSettings
from ..execution.executor import Executors, make_measurement_runner
from ..execution.progress_messages import LogFunction, progress_logger
from ..optimizer.plugins import Plugin
from ..optimizer.search_space import own_scores
from ..storage.run_folder import RunFolder, update_config
from ..trial.budget import make_trial_budget
from ..trial.context import TrialContext
from .dense_model import (
    DenseModelInputs,
    build_from_settings,
    choose_device_config,
    load_or_train_weights,
    measure_dense_metrics,
)
from .measurement_budget import fit_images_to_time, measurement_limits, passes_per_image
from .versions import installed_versions

OWN_SCORE_TEST_IMAGES = 64


@dataclass(frozen=True, slots=True, eq=False)
class LoadedInputs:
    """The model and the data, each by name or as an object from Python."""

    settings: SearchSettings
    data: DataSplits
    model: nn.Module | None  # None: build it by the name in the settings


@dataclass(frozen=True, slots=True, eq=False)
class CheckedInputs:
    """Inputs that fit together: the model takes the images, the target can be reached."""

    inputs: LoadedInputs
    model: nn.Module  # the working copy
    space: PruningSpace
    policies: list[Policy]  # what they read is measured
    is_trained: bool

    @property
    def dense_inputs(self) -> DenseModelInputs:
        """The working copy with its data and settings."""
        return DenseModelInputs(self.model, self.inputs.data, self.inputs.settings)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSearch:
    """The context of the trials, the metrics of the dense model, and how to measure more."""

    context: TrialContext
    dense: DenseMetrics
    measurement_context: MeasurementContext
    run_jobs: RunJobs


def check_inputs(
    inputs: LoadedInputs,
    run: RunFolder,
    policies: Callable[[PruningSpace], Iterable[Policy]],
    log: LogFunction,
) -> CheckedInputs:
    """Build the model, trace its channel map, and check all that a user can mistype.

    Nothing is trained, no Ray is needed.

    Raises:
        UserError: the model does not take the images, the weights do not fit, the target or the
            spread cannot be reached, or a score does not exist.
    """
    settings = inputs.settings
    for note in inputs.data.notes:
        log(note)
    log(describe_normalisation(inputs.data, settings.images()))
    log(describe_augmentation(inputs.data, settings.images()))
    model, notes = make_working_copy(resolve_model(inputs, run, log))
    data, more = read_outputs(model, inputs.data, settings.outputs)
    inputs = replace(inputs, data=data)
    for note in (*notes, *more, *surplus_notes(count_scored_classes(model, inputs), data.classes)):
        log(note)
    space = build_pruning_space(model, data, settings)
    check_target_sizes(settings, space)
    for name in settings.names_in("scores"):
        check_score_exists(name, "--scores")
    is_trained = inputs.model is not None or settings.weights is not None
    checked = CheckedInputs(inputs, model, space, list(policies(space)), is_trained)
    if not is_trained and not run.dense.exists():
        try_own_scores(checked)
    return checked


def prepare_search(
    checked: CheckedInputs, run: RunFolder, plugins: tuple[Plugin, ...], executors: Executors
) -> PreparedSearch:
    """Train or read the dense model and measure what the policies read."""
    settings, data = checked.inputs.settings, checked.inputs.data
    model, space, dense_inputs = checked.model, checked.space, checked.dense_inputs
    layout = build_layout(space.channel_map)
    write_json_atomic(run.space, {**layout.to_json(), "versions": installed_versions()})
    executors.timer.lap("start")
    (detected,) = executors.dense.run([single_call_job(choose_device_config)], dense_inputs)
    device_config = device_config_of_run(run, detected)
    load_or_train_weights(
        dense_inputs, run, device_config, executors.dense, trained=checked.is_trained
    )
    executors.timer.lap("dense")
    passes = passes_per_image(checked.policies, len(space.channel_map.groups))
    timely = fit_images_to_time(dense_inputs, passes, run, device_config, executors)
    model.cpu()  # each worker moves its copy to its own device
    measurement_context = make_measurement_context(timely, space.channel_map, run)
    run_jobs = make_measurement_runner(executors.measurements, device_config.device)
    measurements = measure_for_policies(
        checked.policies, measurement_context, run_jobs, progress_logger(executors.log)
    )
    executors.timer.lap("evidence")
    context = TrialContext(
        model=model,
        data=data,
        space=space,
        measurements=measurements,
        source=model_source(checked.inputs),
        map_sha256=channel_map_digest(space.channel_map),
        root=run.root.resolve(),
        budget=make_trial_budget(settings, data),
        machine=device_config,
        teacher=Teacher(model, device_config, memory=LOGITS_CACHE_BYTES),
        measurement_limits=measurement_context.limits,
        plugins=plugins,
    )
    dense = measure_dense_metrics(context, executors.dense, executors.log)
    if checked.is_trained and (warning := chance_warning(dense.accuracy, data)):
        executors.log(warning)
    executors.timer.lap("dense")
    return PreparedSearch(context, dense, measurement_context, run_jobs)


def try_own_scores(checked: CheckedInputs) -> None:
    """Measure the user's own scores on a few images, so that a fault shows before training."""
    names = own_scores(sorted({policy.score for policy in checked.policies}))
    if names:
        data, seed = checked.inputs.data, checked.inputs.settings.seed
        few = replace(data, train=fixed_subset(data.train, OWN_SCORE_TEST_IMAGES))
        load_or_measure_scores(
            checked.model, checked.space.channel_map, few, folder=None, seed=seed, names=names
        )


def resolve_model(
    inputs: LoadedInputs, run: RunFolder, log: LogFunction | None = None
) -> nn.Module:
    """Return the user's model, or build it by name; weights in the run folder are read later."""
    if inputs.model is not None:
        name = type(inputs.model).__name__
        count_scored_classes(inputs.model, inputs)
        check_finite(inputs.model, inputs.model.state_dict(), f"model {name!r}")
        return inputs.model
    settings = inputs.settings
    if run.dense.exists():
        return build_from_settings(replace(settings, weights=None), inputs.data)
    return build_from_settings(settings, inputs.data, log)


def count_scored_classes(model: nn.Module, inputs: LoadedInputs) -> int:
    """Return how many classes the model scores; raise if it does not take the images."""
    data = inputs.data
    return check_model_output(model, type(model).__name__, data.classes, tuple(data.input_shape))


def make_measurement_context(
    dense_inputs: DenseModelInputs, channel_map: ChannelMap, run: RunFolder
) -> MeasurementContext:
    """Return the model and data to measure on, with the folder and limits of measurements."""
    run.measurements.mkdir(exist_ok=True)
    model, data, settings = dense_inputs.model, dense_inputs.data, dense_inputs.settings
    folder, limits = run.measurements.resolve(), measurement_limits(settings)
    return MeasurementContext(model, channel_map, data, settings.seed, folder, limits)


def device_config_of_run(run: RunFolder, detected: DeviceConfig) -> DeviceConfig:
    """Return the device configuration of the run's first start: a resumed run computes alike."""
    config = read_json(run.config)
    if "machine" not in config:
        update_config(run, machine=asdict(detected))
        return detected
    try:
        kept = DeviceConfig(**config["machine"])
    except TypeError as error:
        raise UserError(f"{run.config} must hold a machine record, got {error}; drop it") from None
    return kept if kept.device == detected.device else detected


def build_pruning_space(
    model: nn.Module, data: DataSplits, settings: SearchSettings
) -> PruningSpace:
    """Return the channel map and cost model of the working copy, with the user's limits.

    Raises:
        UserError: no channel can be removed.
    """
    channel_map = trace_channel_map(model, tuple(data.input_shape), keep=settings.keep)
    if channel_map.atoms == 0:
        raise UserError(
            "a network must have channels that can be removed, got none; "
            "run paretoprune inspect to see what protects them"
        )
    return PruningSpace(
        channel_map, CostModel(channel_map), settings.min_channels, settings.round_to
    )


def model_source(inputs: LoadedInputs) -> ModelSource:
    """Return the description of the dense model for recipes."""
    return ModelSource(
        name=inputs.settings.model if inputs.model is None else None,
        classes=inputs.data.classes,
        input_shape=tuple(inputs.data.input_shape),
        keep=tuple(inputs.settings.keep),
        mean=tuple(map(float, inputs.data.mean)),
        std=tuple(map(float, inputs.data.std)),
        data=portable_data_name(inputs.data.name),
        data_sha256=data_digest(inputs.data),
        augment=inputs.data.augment,
        outputs=inputs.data.outputs.form,
        element=inputs.data.outputs.element,
    )


def check_target_sizes(settings: SearchSettings, space: PruningSpace) -> None:
    """Refuse a target that the network cannot reach, or that the dense network meets.

    One of two targets may be the full size of the dense network.
    """
    target, dense, lowest = settings.target(), space.cost_model.dense, space.min_cost()
    names, limits = ("--target-flops", "--target-params"), target.limits(dense)
    is_met = all(
        limit is None or limit >= whole for limit, whole in zip(limits, dense, strict=True)
    )
    rows = zip(names, limits, lowest, dense, target.fractions(dense), strict=True)
    for name, limit, reachable, whole, fraction in rows:
        if limit is not None and (limit > whole or (limit == whole and is_met)):
            raise UserError(
                f"{name} must be below the dense network's {whole:,}, got {limit:,}; for forty "
                "percent write 0.4"
            )
        if limit is not None and limit < reachable:
            low = math.ceil(reachable / whole * 10_000) / 10_000
            raise UserError(
                f"{name} must be at least {low:.4f} for this network, got {fraction:.4g}; "
                "ask for more, or lower --min-channels, --round-to or --keep"
            )


def data_digest(data: DataSplits) -> str:
    """Return a hash of the data, to check that a resumed run gets the same data."""
    digest = hashlib.sha256(repr((data.classes, tuple(data.input_shape), data.mean)).encode())
    for split in (data.train, data.validation):
        digest.update(str(len(split)).encode())
        digest.update(np.ascontiguousarray(split.labels.numpy()).tobytes())
        digest.update(np.ascontiguousarray(split.images[:64].numpy()).tobytes())
    return digest.hexdigest()


def load_inputs(
    settings: SearchSettings, *, model: nn.Module | None, data: DataSplits | None
) -> LoadedInputs:
    """Load the data by name unless they were given, and apply the image options."""
    if data is None:
        data = load_data(settings.data, seed=0, download=settings.download)
    return LoadedInputs(settings, with_options(data, settings.images()), model)


def check_images(options: ImageOptions, name: str, data: DataSplits | None) -> None:
    """Refuse a normalisation or augmentation that does not fit the data or their source."""
    if data is None:
        check_for_source(options, name)
    else:
        with_options(data, options)


def check_weights_file(path: Path | None) -> None:
    """Refuse a missing weights file before anything is created."""
    if path is not None and not path.is_file():
        raise UserError(f"--weights must be a file, got {path}; check the path")
