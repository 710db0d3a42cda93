"""Everything before the first trial: data, the dense network, its map and price, the evidence."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors
from torch import nn

from ..analysis.ensembles import Surrogate
from ..analysis.gathering import Measuring, OnProgress, gather_evidence, gather_surrogate
from ..spaces.channels import map_digest
from ..spaces.decode import Space
from ..spaces.durable import write_bytes, write_json
from ..spaces.errors import UserError
from ..spaces.front import Dense
from ..spaces.layout import layout_of
from ..spaces.policy import Policy
from ..spaces.price import Price
from ..spaces.recipe import Source
from ..spaces.trace import trace_channels
from ..spaces.working_copy import working_copy
from ..trainers.data import load_data
from ..trainers.evaluate import evaluate
from ..trainers.loop import Progress, Tuning, train
from ..trainers.machine import Machine, detect_machine
from ..trainers.models import build_model, load_weights
from ..trainers.split import Data
from .context import Context
from .effort import dense_epochs, effort_of
from .plugins import Plugin
from .run_folder import RunFolder
from .settings import SearchSettings
from .versions import versions

LEAST_CURVE_IMAGES, PER_CURVE_IMAGE = 256, 32  # of those that an ensemble may take
TELL_SECONDS = 10.0


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

    def surrogate(self) -> Surrogate:
        """What foretells the loss of any mask; measured at the first call, kept in the run."""
        return gather_surrogate(self.measuring)


Say = Callable[[str], None]


def prepare_search(
    inputs: Inputs,
    run: RunFolder,
    plugins: tuple[Plugin, ...],
    say: Say,
    policies: Callable[[Space], Iterable[Policy]],
) -> Prepared:
    """Make or read the dense network, map it, price it, measure the evidence of the policies."""
    settings, data = inputs.settings, inputs.data
    torch.set_num_threads(1)
    given = inputs.model
    model, notes = working_copy(build(settings, data) if given is None else given)
    for note in notes:
        say(note)
    space = space_of(model, data, settings)
    check_target(settings, space)
    wanted = list(policies(space))
    layout = layout_of(space.channel_map)
    write_json(run.space, {**layout.to_json(), "versions": versions()})
    machine = remembered_machine(run, machine_of(model, data, settings))
    dense_weights(model, inputs, run, machine, say)
    model.cpu()  # it travels to the workers, which move what they cut from it
    images = settings.ensemble_images
    measuring = Measuring(
        model,
        space.channel_map,
        data,
        settings.seed,
        run.evidence,
        images,
        None if images is None else max(LEAST_CURVE_IMAGES, images // PER_CURVE_IMAGE),
        telling(say),
    )
    context = Context(
        model=model,
        data=data,
        space=space,
        evidence=gather_evidence(wanted, measuring),
        source=source_of(inputs),
        map_sha256=map_digest(space.channel_map),
        root=run.root.resolve(),
        effort=effort_of(settings, data),
        machine=machine,
        plugins=plugins,
    )
    return Prepared(context, measure_dense(context, say), measuring)


def telling(say: Say) -> OnProgress:
    """Say how far a measurement is: at its start and, if it takes long, every ten seconds."""
    said: dict[str, float] = {}

    def tell(what: str, done: int, total: int) -> None:
        kind = what.partition(",")[0]
        now = time.monotonic()
        if kind not in said:
            say(f"measuring {kind}")
        elif now - said[kind] < TELL_SECONDS:
            return
        else:
            say(f"  {what}: {done:,} of {total:,}")
        said[kind] = now

    return tell


def machine_of(model: nn.Module, data: Data, settings: SearchSettings) -> Machine:
    """The best settings here for this network; on the CPU if trials are to have no GPU."""
    machine = detect_machine(model, tuple(data.input_shape))
    if settings.gpus_per_trial == 0 and machine.device != "cpu":
        return Machine(device="cpu")
    return machine


def remembered_machine(run: RunFolder, detected: Machine) -> Machine:
    """The settings of this run's first start, so that a resumed one computes alike."""
    config = json.loads(run.config.read_text())
    if "machine" not in config:
        write_json(run.config, {**config, "machine": asdict(detected)})
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
    )


def measure_dense(context: Context, say: Say) -> Dense:
    """The dense network's own figures, without the test split."""
    data, channel_map = context.data, context.space.channel_map
    accuracy = evaluate(context.model, data.validation, data, machine=context.machine).accuracy
    context.model.cpu()
    macs, params = context.space.price.dense
    say(
        f"dense network: validation accuracy {accuracy:.4f}, {macs:,} MACs, {params:,} params, "
        f"{channel_map.atoms} atoms in {len(channel_map.groups)} groups"
    )
    return Dense(accuracy, macs, params)


def build(settings: SearchSettings, data: Data) -> nn.Module:
    """The network that the settings name, with `--weights` if they are given."""
    model = build_model(
        settings.model, classes=data.classes, input_shape=data.input_shape, seed=settings.seed
    )
    if settings.weights is not None:
        load_weights(model, settings.weights)
    return model


def dense_weights(
    model: nn.Module, inputs: Inputs, run: RunFolder, machine: Machine, say: Say
) -> None:
    """Train the network if nobody did; keep its weights in the run, and reuse them on resume."""
    settings, data = inputs.settings, inputs.data
    if run.dense.exists():
        model.load_state_dict(load_file(run.dense))
        model.eval()
        return
    if inputs.model is None and settings.weights is None:
        epochs = dense_epochs(settings, data)
        say(f"training the dense network for {epochs:g} epochs")
        tuning = Tuning(epochs=epochs, learning_rate=0.1, warmup=0.1, batch_size=64)

        def each_epoch(progress: Progress) -> bool:
            if progress.epoch % math.ceil(epochs / 8) == 0 or progress.epoch == epochs:
                say(f"  epoch {progress.epoch:g}/{epochs:g}, loss {progress.loss:.4f}")
            return True

        train(model, data, tuning, seed=settings.seed, on_epoch=each_epoch, machine=machine)
    model.eval()
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    write_bytes(run.dense, as_safetensors(tensors))


def check_target(settings: SearchSettings, space: Space) -> None:
    """Refuse a target below what the network allows, before anything is spent on it."""
    target, dense, lowest = settings.target(), space.price.dense, space.lowest()
    names = ("--target-flops", "--target-params")
    limits = zip(names, target.limits(dense), lowest, dense, target.fractions(dense), strict=True)
    for name, limit, reach, whole, fraction in limits:
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
    return Inputs(settings, data, model)


def weights_exist(path: Path | None) -> None:
    """Refuse a missing weights file before anything is made."""
    if path is not None and not path.is_file():
        raise UserError(f"--weights must be a file, got {path}; check the path")
