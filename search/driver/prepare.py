"""Everything before the first trial: data, the dense network, its map and price, the evidence."""

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
    check_for_source,
    told_augmentation,
    told_chance,
    told_normalisation,
    with_options,
)
from ...trainers.data.sources.load import load_data
from ...trainers.data.types import DataSplits
from ...trainers.models.build import check_model_output, surplus_notes
from ...trainers.models.read_outputs import read_outputs
from ...trainers.models.weights import check_finite
from ...trainers.runtime.device import DeviceConfig
from ...trainers.training.distillation import LOGITS_CACHE_BYTES, Teacher
from ..config.settings import SearchSettings
from ..execution.executor import Executors, make_measurement_runner
from ..execution.messages import LogFunction, progress_logger
from ..optimizer.plugins import Plugin
from ..optimizer.search_space import own_scores
from ..storage.run_folder import RunFolder, update_config
from ..trial.budget import make_trial_budget
from ..trial.context import TrialContext
from .calibration_budget import fit_images_to_time, measurement_limits, passes_per_image
from .dense_model import (
    DenseModelInputs,
    build_from_settings,
    choose_device_config,
    load_or_train_weights,
    measure_dense_metrics,
)
from .versions import installed_versions

TRIED = 64  # images


@dataclass(frozen=True, slots=True, eq=False)
class LoadedInputs:
    """The network and the data; either may have been given in Python instead of by name."""

    settings: SearchSettings
    data: DataSplits
    model: nn.Module | None  # None: build it by the settings' name


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSearch:
    """What the driver hands to the trials, and the dense network's own figures."""

    context: TrialContext
    dense: DenseMetrics
    measurement_context: MeasurementContext
    run_jobs: RunJobs  # how more evidence is measured


def prepare_search(
    inputs: LoadedInputs,
    run: RunFolder,
    plugins: tuple[Plugin, ...],
    policies: Callable[[PruningSpace], Iterable[Policy]],
    executors: Executors,
) -> PreparedSearch:
    """Make or read the dense network, map it, price it, measure the evidence of the policies."""
    settings = inputs.settings
    for note in inputs.data.notes:
        executors.log(note)
    executors.log(told_normalisation(inputs.data, settings.images()))
    executors.log(told_augmentation(inputs.data, settings.images()))
    model, notes = make_working_copy(resolve_model(inputs, run, executors.log))
    data, more = read_outputs(model, inputs.data, settings.outputs)
    inputs = replace(inputs, data=data)
    for note in (*notes, *more, *surplus_notes(scored_by(model, inputs), data.classes)):
        executors.log(note)
    space = build_pruning_space(model, data, settings)
    check_target_sizes(settings, space)
    for word in settings.names_in("scores"):
        check_score_exists(word, "--scores")
    wanted = list(policies(space))
    layout = build_layout(space.channel_map)
    write_json_atomic(run.space, {**layout.to_json(), "versions": installed_versions()})
    untrained = DenseModelInputs(model, data, settings)
    executors.timer.lap("start")
    (detected,) = executors.dense.run([single_call_job(choose_device_config)], untrained)
    machine = device_config_of_run(run, detected)
    trained = inputs.model is not None or settings.weights is not None
    if not trained and not run.dense.exists():
        try_own_scores(wanted, untrained, space.channel_map)
    load_or_train_weights(untrained, run, machine, executors.dense, trained=trained)
    executors.timer.lap("dense")
    runs = passes_per_image(wanted, len(space.channel_map.groups))
    timely = fit_images_to_time(untrained, runs, run, machine, executors)
    model.cpu()  # it travels to the workers, which move what they cut from it
    measuring = make_measurement_context(timely, space.channel_map, run)
    do = make_measurement_runner(executors.measurements, machine.device)
    evidence = measure_for_policies(wanted, measuring, do, progress_logger(executors.log))
    executors.timer.lap("evidence")
    context = TrialContext(
        model=model,
        data=data,
        space=space,
        measurements=evidence,
        source=model_source(inputs),
        map_sha256=channel_map_digest(space.channel_map),
        root=run.root.resolve(),
        budget=make_trial_budget(settings, data),
        machine=machine,
        teacher=Teacher(model, machine, memory=LOGITS_CACHE_BYTES),
        measurement_limits=measuring.limits,
        plugins=plugins,
    )
    dense = measure_dense_metrics(context, executors.dense, executors.log)
    if trained and (warning := told_chance(dense.accuracy, data)):
        executors.log(warning)
    executors.timer.lap("dense")
    return PreparedSearch(context, dense, measuring, do)


def try_own_scores(
    wanted: Iterable[Policy], on: DenseModelInputs, channel_map: ChannelMap
) -> None:
    """Let a fault in a score of the user's show on a few images, before a network is trained."""
    names = own_scores(sorted({policy.score for policy in wanted}))
    if names:
        few = replace(on.data, train=fixed_subset(on.data.train, TRIED))
        seed = on.settings.seed
        load_or_measure_scores(on.model, channel_map, few, folder=None, seed=seed, names=names)


def resolve_model(
    inputs: LoadedInputs, run: RunFolder, say: LogFunction | None = None
) -> nn.Module:
    """The user's object, or what the name builds; weights that the run has are read here only."""
    if inputs.model is not None:
        name = type(inputs.model).__name__
        scored_by(inputs.model, inputs)
        check_finite(inputs.model, inputs.model.state_dict(), f"model {name!r}")
        return inputs.model
    settings = inputs.settings
    if run.dense.exists():
        return build_from_settings(replace(settings, weights=None), inputs.data)
    return build_from_settings(settings, inputs.data, say)


def scored_by(model: nn.Module, inputs: LoadedInputs) -> int:
    """How many classes the network scores."""
    data = inputs.data
    return check_model_output(model, type(model).__name__, data.classes, tuple(data.input_shape))


def make_measurement_context(
    dense_inputs: DenseModelInputs, channel_map: ChannelMap, run: RunFolder
) -> MeasurementContext:
    """What evidence is measured on, and what it may take."""
    run.measurements.mkdir(exist_ok=True)
    folder, limits = run.measurements.resolve(), measurement_limits(dense_inputs.settings)
    return MeasurementContext(
        dense_inputs.model,
        channel_map,
        dense_inputs.data,
        dense_inputs.settings.seed,
        folder,
        limits,
    )


def device_config_of_run(run: RunFolder, detected: DeviceConfig) -> DeviceConfig:
    """The settings of this run's first start, so that a resumed one computes alike."""
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
    """The map and the price of the working copy, with the user's limits."""
    channel_map = trace_channel_map(model, tuple(data.input_shape), keep=settings.keep)
    if channel_map.atoms == 0:
        raise UserError(
            "a network must have channels that can be removed, got none; "
            "paretoprune inspect says what protects them"
        )
    return PruningSpace(
        channel_map, CostModel(channel_map), settings.min_channels, settings.round_to
    )


def model_source(inputs: LoadedInputs) -> ModelSource:
    """What a recipe says of the dense network."""
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
    """Refuse a target that the network cannot meet, or meets as it is, before work is spent on it.

    Of two targets one may be the whole of the dense network.
    """
    target, dense, lowest = settings.target(), space.cost_model.dense, space.min_cost()
    names = ("--target-flops", "--target-params")
    most = target.limits(dense)
    idle = all(limit is None or limit >= whole for limit, whole in zip(most, dense, strict=True))
    limits = zip(names, most, lowest, dense, target.fractions(dense), strict=True)
    for name, limit, reach, whole, fraction in limits:
        if limit is not None and (limit > whole or (limit == whole and idle)):
            raise UserError(
                f"{name} must be below the dense network's {whole:,}, got {limit:,}; for forty "
                "percent write 0.4"
            )
        if limit is not None and limit < reach:
            low = math.ceil(reach / whole * 10_000) / 10_000
            raise UserError(
                f"{name} must be at least {low:.4f} for this network, got {fraction:.4g}; "
                "ask for more, or lower --min-channels, --round-to or --keep"
            )


def data_digest(data: DataSplits) -> str:
    """A hash that tells whether a resumed run was given the data it began with."""
    digest = hashlib.sha256(repr((data.classes, tuple(data.input_shape), data.mean)).encode())
    for split in (data.train, data.validation):
        digest.update(str(len(split)).encode())
        digest.update(np.ascontiguousarray(split.labels.numpy()).tobytes())
        digest.update(np.ascontiguousarray(split.images[:64].numpy()).tobytes())
    return digest.hexdigest()


def load_inputs(
    settings: SearchSettings, *, model: nn.Module | None, data: DataSplits | None
) -> LoadedInputs:
    """The inputs by name where they were not given in Python."""
    if data is None:
        data = load_data(settings.data, seed=0, download=settings.download)
    return LoadedInputs(settings, with_options(data, settings.images()), model)


def check_images(options: ImageOptions, name: str, data: DataSplits | None) -> None:
    """Refuse a normalisation or augmentation that the data cannot have, as early as it shows."""
    if data is None:
        check_for_source(options, name)
    else:
        with_options(data, options)


def check_weights_file(path: Path | None) -> None:
    """Refuse a missing weights file before anything is made."""
    if path is not None and not path.is_file():
        raise UserError(f"--weights must be a file, got {path}; check the path")
