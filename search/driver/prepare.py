"""Everything before the first trial: data, the dense network, its map and price, the evidence."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from ...analysis.measure import Do, Measuring, check_known, gather_evidence
from ...analysis.scores.measure import measure_evidence
from ...analysis.staged_jobs import single
from ...spaces.allocations.decode import Space
from ...spaces.cost.cost import Price
from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap, map_digest
from ...spaces.graph.layout import layout_of
from ...spaces.graph.trace import trace_channels
from ...spaces.graph.working_copy import working_copy
from ...spaces.io.atomic_write import write_json
from ...spaces.io.bounded_read import read_json
from ...spaces.policy.policy import Policy
from ...spaces.records.pareto_front import Dense
from ...spaces.records.recipe import Source, data_named
from ...trainers.data.batches import draw
from ...trainers.data.image_options import (
    ImageOptions,
    check_for_source,
    told_augmentation,
    told_chance,
    told_normalisation,
    with_options,
)
from ...trainers.data.sources.load import load_data
from ...trainers.data.types import Data
from ...trainers.models.build import check_fits, surplus_notes
from ...trainers.models.read_outputs import read_outputs
from ...trainers.models.weights import check_finite
from ...trainers.runtime.device import Machine
from ...trainers.training.distillation import MEMORY, Teacher
from ..config.settings import SearchSettings
from ..execution.executor import Crew, measuring_by
from ..execution.messages import Say, telling
from ..optimizer.plugins import Plugin
from ..optimizer.search_space import own_scores
from ..storage.run_folder import RunFolder, keep
from ..trial.budget import effort_of
from ..trial.context import Context
from .calibration_budget import affordable, limits_of, runs_an_image
from .dense_model import Untrained, build, dense_weights, machine_of, measure_dense
from .versions import versions

TRIED = 64  # images


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The network and the data; either may have been given in Python instead of by name."""

    settings: SearchSettings
    data: Data
    model: nn.Module | None  # None: build it by the settings' name


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What the driver hands to the trials, and the dense network's own figures."""

    context: Context
    dense: Dense
    measuring: Measuring
    do: Do  # how more evidence is measured


def prepare_search(
    inputs: Inputs,
    run: RunFolder,
    plugins: tuple[Plugin, ...],
    policies: Callable[[Space], Iterable[Policy]],
    crew: Crew,
) -> Prepared:
    """Make or read the dense network, map it, price it, measure the evidence of the policies."""
    settings = inputs.settings
    for note in inputs.data.notes:
        crew.say(note)
    crew.say(told_normalisation(inputs.data, settings.images()))
    crew.say(told_augmentation(inputs.data, settings.images()))
    model, notes = working_copy(network_of(inputs, run, crew.say))
    data, more = read_outputs(model, inputs.data, settings.outputs)
    inputs = replace(inputs, data=data)
    for note in (*notes, *more, *surplus_notes(scored_by(model, inputs), data.classes)):
        crew.say(note)
    space = space_of(model, data, settings)
    check_target(settings, space)
    for word in settings.words("scores"):
        check_known(word, "--scores")
    wanted = list(policies(space))
    layout = layout_of(space.channel_map)
    write_json(run.space, {**layout.to_json(), "versions": versions()})
    untrained = Untrained(model, data, settings)
    crew.watch.note("start")
    (detected,) = crew.dense.do([single(machine_of)], untrained)
    machine = remembered_machine(run, detected)
    trained = inputs.model is not None or settings.weights is not None
    if not trained and not run.dense.exists():
        try_own_scores(wanted, untrained, space.channel_map)
    dense_weights(untrained, run, machine, crew.dense, trained=trained)
    crew.watch.note("dense")
    runs = runs_an_image(wanted, len(space.channel_map.groups))
    timely = affordable(untrained, runs, run, machine, crew)
    model.cpu()  # it travels to the workers, which move what they cut from it
    measuring = measuring_of(timely, space.channel_map, run)
    do = measuring_by(crew.evidence, machine.device)
    evidence = gather_evidence(wanted, measuring, do, telling(crew.say))
    crew.watch.note("evidence")
    context = Context(
        model=model,
        data=data,
        space=space,
        evidence=evidence,
        source=source_of(inputs),
        map_sha256=map_digest(space.channel_map),
        root=run.root.resolve(),
        effort=effort_of(settings, data),
        machine=machine,
        teacher=Teacher(model, machine, memory=MEMORY),
        limits=measuring.limits,
        plugins=plugins,
    )
    dense = measure_dense(context, crew.dense, crew.say)
    if trained and (warning := told_chance(dense.accuracy, data)):
        crew.say(warning)
    crew.watch.note("dense")
    return Prepared(context, dense, measuring, do)


def try_own_scores(wanted: Iterable[Policy], on: Untrained, channel_map: ChannelMap) -> None:
    """Let a fault in a score of the user's show on a few images, before a network is trained."""
    names = own_scores(sorted({policy.score for policy in wanted}))
    if names:
        few = replace(on.data, train=draw(on.data.train, TRIED))
        seed = on.settings.seed
        measure_evidence(on.model, channel_map, few, folder=None, seed=seed, names=names)


def network_of(inputs: Inputs, run: RunFolder, say: Say | None = None) -> nn.Module:
    """The user's object, or what the name builds; weights that the run has are read here only."""
    if inputs.model is not None:
        name = type(inputs.model).__name__
        scored_by(inputs.model, inputs)
        check_finite(inputs.model, inputs.model.state_dict(), f"model {name!r}")
        return inputs.model
    settings = inputs.settings
    if run.dense.exists():
        return build(replace(settings, weights=None), inputs.data)
    return build(settings, inputs.data, say)


def scored_by(model: nn.Module, inputs: Inputs) -> int:
    """How many classes the network scores."""
    data = inputs.data
    return check_fits(model, type(model).__name__, data.classes, tuple(data.input_shape))


def measuring_of(on: Untrained, channel_map: ChannelMap, run: RunFolder) -> Measuring:
    """What evidence is measured on, and what it may take."""
    run.evidence.mkdir(exist_ok=True)
    folder, limits = run.evidence.resolve(), limits_of(on.settings)
    return Measuring(on.model, channel_map, on.data, on.settings.seed, folder, limits)


def remembered_machine(run: RunFolder, detected: Machine) -> Machine:
    """The settings of this run's first start, so that a resumed one computes alike."""
    config = read_json(run.config)
    if "machine" not in config:
        keep(run, machine=asdict(detected))
        return detected
    try:
        kept = Machine(**config["machine"])
    except TypeError as error:
        raise UserError(f"{run.config} must hold a machine record, got {error}; drop it") from None
    return kept if kept.device == detected.device else detected


def space_of(model: nn.Module, data: Data, settings: SearchSettings) -> Space:
    """The map and the price of the working copy, with the user's limits."""
    channel_map = trace_channels(model, tuple(data.input_shape), keep=settings.keep)
    if channel_map.atoms == 0:
        raise UserError(
            "a network must have channels that can be removed, got none; "
            "paretoprune inspect says what protects them"
        )
    return Space(channel_map, Price(channel_map), settings.min_channels, settings.round_to)


def source_of(inputs: Inputs) -> Source:
    """What a recipe says of the dense network."""
    return Source(
        name=inputs.settings.model if inputs.model is None else None,
        classes=inputs.data.classes,
        input_shape=tuple(inputs.data.input_shape),
        keep=tuple(inputs.settings.keep),
        mean=tuple(map(float, inputs.data.mean)),
        std=tuple(map(float, inputs.data.std)),
        data=data_named(inputs.data.name),
        data_sha256=data_digest(inputs.data),
        augment=inputs.data.augment,
        outputs=inputs.data.outputs.form,
        element=inputs.data.outputs.element,
    )


def check_target(settings: SearchSettings, space: Space) -> None:
    """Refuse a target that the network cannot meet, or meets as it is, before work is spent on it.

    Of two targets one may be the whole of the dense network.
    """
    target, dense, lowest = settings.target(), space.price.dense, space.lowest()
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


def data_digest(data: Data) -> str:
    """A hash that tells whether a resumed run was given the data it began with."""
    digest = hashlib.sha256(repr((data.classes, tuple(data.input_shape), data.mean)).encode())
    for split in (data.train, data.validation):
        digest.update(str(len(split)).encode())
        digest.update(np.ascontiguousarray(split.labels.numpy()).tobytes())
        digest.update(np.ascontiguousarray(split.images[:64].numpy()).tobytes())
    return digest.hexdigest()


def load_inputs(settings: SearchSettings, *, model: nn.Module | None, data: Data | None) -> Inputs:
    """The inputs by name where they were not given in Python."""
    if data is None:
        data = load_data(settings.data, seed=0, download=settings.download)
    return Inputs(settings, with_options(data, settings.images()), model)


def check_images(options: ImageOptions, name: str, data: Data | None) -> None:
    """Refuse a normalisation or augmentation that the data cannot have, as early as it shows."""
    if data is None:
        check_for_source(options, name)
    else:
        with_options(data, options)


def weights_exist(path: Path | None) -> None:
    """Refuse a missing weights file before anything is made."""
    if path is not None and not path.is_file():
        raise UserError(f"--weights must be a file, got {path}; check the path")
