"""The driver: one search from its settings to its front."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ... import __version__
from ...spaces.allocations.decode import Space
from ...spaces.errors import UserError, as_called
from ...spaces.io.atomic_write import write_json
from ...spaces.policy.policy import CONTROLS, Policy
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front
from ...trainers.data.image_options import options_in
from ...trainers.data.types import Data
from ...trainers.runtime.device import Machine, threads
from ..config.disk_errors import DiskFull, NoRoom, room_needed
from ..config.settings import SearchSettings
from ..config.worker_errors import WorkersDied
from ..execution.executor import Crew, Workers, crew_of
from ..execution.fd_redirect import output_to
from ..execution.ray_runtime import RayStart, ray_for
from ..execution.signals import Stopped, Stopping
from ..optimizer.plugins import Plugin, plugged, read_plugin
from ..optimizer.screening import WORTH, Proposal
from ..optimizer.trial_store import Ledger
from ..results.utilization import efficiency_of
from ..storage.artifacts import check_place, lasting
from ..storage.journal_repair import mend
from ..storage.run_folder import (
    CONFIG_SCHEMA,
    RunFolder,
    create_run,
    default_folder,
    given_back,
    keep_settings,
    locked,
    not_there,
    open_run,
)
from ..storage.trial_records import read_record
from ..storage.trial_spec import Job
from ..trial.context import Context
from ..trial.timing import Watch
from .calibration_budget import SCREENING, with_images
from .deadline import DENSE, TimeLimit
from .finalize import conclude, drop_weights, write_results
from .ineffective_settings import without_effect
from .initial_trials import open_ledger, policy_space_of, spread_asked
from .prepare import (
    Inputs,
    Prepared,
    check_images,
    data_digest,
    load_inputs,
    prepare_search,
    weights_exist,
)
from .progress import Progress
from .resume import IMAGES, resume_command, same_again, with_kept
from .reuse import take_over
from .warm_start import WARM_START, warm_start_json


class AllFailed(RuntimeError):
    """No trial came to an end; the text is the first reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What comes besides the settings: objects from Python, earlier runs, how to show progress."""

    progress: Progress
    model: nn.Module | None = None
    data: Data | None = None
    warm_start: tuple[Proposal, ...] = ()  # policies of an earlier front, tried first
    relatives: tuple[Path, ...] = ()  # earlier runs of the same dense network and data


def new_search(settings: SearchSettings, given: Given) -> tuple[RunFolder, Front]:
    """Run a new search in a new folder."""
    watch = Watch()
    settings.check()
    check_by_object(settings, given)
    asked = settings
    settings = replace(with_images(settings), artifacts=lasting(settings.artifacts))
    weights_exist(settings.weights)
    check_images(settings.images(), settings.data, given.data)
    plugins = tuple(read_plugin(path) for path in settings.plugin)
    data_name = settings.data if given.data is None else given.data.name
    model_name = settings.model if given.model is None else "model"
    folder = settings.out or default_folder(data_name, model_name)
    made = not_there(folder)
    with plugged(plugins):
        idle = list(without_effect(asked, model_given=given.model is not None))
    run = create_run(folder)

    def load() -> Inputs:
        inputs = load_inputs(settings, model=given.model, data=given.data)
        for line in idle:
            given.progress.say(line)
        write_json(run.config, config_of(inputs, run, plugins, given))
        take_over(
            run, given.relatives, dense=settings.weights is None, max_minutes=settings.max_minutes
        )
        return inputs

    with locked(run), given_back(run, made), plugged(plugins):
        check_place(settings.artifacts, run.root)
        return run, drive(Beginning(settings, load, watch), run, plugins, given.progress)


def check_by_object(settings: SearchSettings, given: Given) -> None:
    """Refuse a file for what came as an object, which nobody would read."""
    if given.model is not None and settings.weights is not None:
        raise UserError(
            f"--weights must be left out where the model is a network, got {settings.weights}; "
            "load them into the network, or name the model"
        )
    if given.data is not None and settings.download:
        raise UserError("--download is for data by name, got data as objects; leave it out")


def config_of(
    inputs: Inputs, run: RunFolder, plugins: tuple[Plugin, ...], given: Given
) -> dict[str, Any]:
    """What a run folder keeps of its beginning."""
    return {
        "schema": CONFIG_SCHEMA,
        "version": __version__,
        "settings": replace(inputs.settings, out=run.root.resolve()).to_json(),
        "model_given": given.model is not None,
        "data_given": given.data is not None,
        "data_sha256": data_digest(inputs.data),
        IMAGES: asdict(options_in(inputs.data)),
        "plugins": [{"path": p.path, "sha256": p.sha256} for p in plugins],
        WARM_START: warm_start_json(given.warm_start),
    }


def resume_search(
    path: Path, given: Given, repeated: dict[str, Any] | None = None
) -> tuple[RunFolder, Front]:
    """Go on with a run: nothing finished is lost or run twice.

    `repeated` are the options given again: what a run folder names is never imported by itself.
    """
    watch = Watch()
    run, config = open_run(path)
    kept, plugins = same_again(config, repeated or {}, model=given.model, data=given.data)
    settings = with_images(kept)

    def load() -> Inputs:
        inputs = load_inputs(settings, model=given.model, data=given.data)
        inputs = replace(inputs, data=with_kept(inputs.data, config))
        if data_digest(inputs.data) != config["data_sha256"]:
            raise UserError(
                f"a resumed run must be given the data it began with, got other data for {path}; "
                "pass the same data, or start a new search"
            )
        if settings.trials != config["settings"].get("trials"):
            keep_settings(run, trials=settings.trials)
        return inputs

    with locked(run), plugged(plugins):
        front = front_of_finished(run, settings.trials)
        if front is not None:
            load()  # other data than the run's are refused here too
            write_results(front, run)
            more = f"all of its {settings.trials} trials are over, more --trials go on with it"
            given.progress.say(f"this run is finished: {more}")
            return run, front
        return run, drive(Beginning(settings, load, watch), run, plugins, given.progress)


def front_of_finished(run: RunFolder, trials: int) -> Front | None:
    """The front of a run that has come to the end of so many trials; None of any other."""
    mend(run.journal)
    record = read_record(run.journal)
    return record.front() if record and record.concluded == trials else None


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a search begins with: its data are loaded while Ray starts."""

    settings: SearchSettings
    load: Callable[[], Inputs]
    watch: Watch


def drive(
    beginning: Beginning, run: RunFolder, plugins: tuple[Plugin, ...], progress: Progress
) -> Front:
    """Prepare, run every trial that is not settled yet, conclude."""
    settings, watch, stopping = beginning.settings, beginning.watch, Stopping()
    limit = TimeLimit(settings.max_minutes)
    with stopping.listening(), progress:
        try:
            with (
                room_needed(),
                threads(Machine()),
                output_to(run.log),
                ray_for(settings, run) as ray_start,
            ):
                ray_start.begin()
                crew = crew_of(
                    Workers(ray_start, settings, run.root, plugins, stopping, progress.say, watch)
                )
                watch.note("start")
                inputs = beginning.load()
                watch.note("data")
                prepared, ledger = prepare(inputs, run, plugins, crew, limit)
                watch.note("screening")
                ledger.note_start(watch.spans())
                progress.begin(ledger, settings.target(), prepared.dense, limit.until)
                if not ledger.over:
                    scene = Scene(run, progress, stopping, ray_start, limit)
                    run_trials(ledger, prepared.context, settings, scene)
                if not ledger.record.evaluations():
                    raise AllFailed(first_failure(ledger))
                return conclude(ledger, prepared.context, run, crew.dense)
        except Stopped as stop:
            stop.run = run if run.config.exists() else None
            raise
        except NoRoom as full:
            what = f"no room is left to write to ({full})"
            raise DiskFull(goes_on_after(what, "make room", run)) from full
        except WorkersDied as died:
            remedy = "free memory for them or take fewer --workers"
            raise WorkersDied(goes_on_after(str(died), remedy, run)) from died


def goes_on_after(trouble: str, remedy: str, run: RunFolder) -> str:
    """The one line about what ended a search that is not over."""
    if not run.config.exists():
        return as_called(f"{trouble}; {remedy} and start again")
    again = resume_command(run.root, open_run(run.root)[1])
    return as_called(f"{trouble}; nothing finished is lost: {remedy}, then go on with {again}")


def prepare(
    inputs: Inputs, run: RunFolder, plugins: tuple[Plugin, ...], crew: Crew, limit: TimeLimit
) -> tuple[Prepared, Ledger]:
    """Everything before the first trial."""
    settings = inputs.settings

    def reading(space: Space) -> list[Policy]:
        spread_asked(settings, space, lambda _: None)  # refused before anything is trained
        screened = [Policy(WORTH)] if settings.screening else []
        return [*policy_space_of(settings, space).read, *CONTROLS.values(), *screened]

    trained = inputs.model is not None or settings.weights is not None or run.dense.exists()
    prepared = prepare_search(inputs, run, plugins, reading, crew)
    late = partial(limit.past, SCREENING if trained else DENSE + SCREENING)
    return prepared, open_ledger(prepared, settings, run, crew.say, late)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Where trials are run, who watches, and until when."""

    run: RunFolder
    progress: Progress
    stopping: Stopping
    ray_start: RayStart
    limit: TimeLimit


def run_trials(ledger: Ledger, context: Context, settings: SearchSettings, scene: Scene) -> None:
    """Let Ray Tune run what the ledger asks for."""
    run, progress, stopping = scene.run, scene.progress, scene.stopping

    def on_trial(job: Job, outcome: Evaluation | str) -> None:
        progress.on_trial(job, outcome)
        if isinstance(outcome, Evaluation) and not (job.control or job.continues):
            drop_weights(ledger, run)

    with stopping.shield():  # Ray and the ledger are left between two steps of Tune only
        scratch = scene.ray_start.wait()
        stopping.listen_again()
        from ..execution.resources import wanting
        from ..execution.tune_runner import StopBetweenSteps, gpus_of, tune_trials, workers_of
        from ..execution.tune_searcher import LedgerSearcher
        from ..optimizer.pareto_halving import Halving

        searcher = LedgerSearcher(ledger, context.root, on_trial, until=scene.limit.until)
        workers = workers_of(context, settings)
        order = (
            "" if workers == 1 else "; the same seed gives the same front with --workers 1 only"
        )
        progress.say(f"running trials on {workers} workers{order}")
        if late := scene.limit.long_beginning():
            progress.say(late)
        missing = wanting(settings, gpus_of(context, settings))
        if missing is not None:
            progress.say(missing)
        halving, since = Halving(ledger.record.rungs()), time.time()
        try:
            tune_trials(searcher, context, settings, StopBetweenSteps(stopping), scratch, halving)
        except Stopped:
            ledger.leave()
            progress.close()
            progress.say("stopping; a second Ctrl-C leaves at once")
            raise
        workers = max(workers, workers_of(context, settings))  # nodes may have come meanwhile
        if told := efficiency_of(ledger.record, workers, since):
            progress.say(told.sentence())


def first_failure(ledger: Ledger) -> str:
    """Why nothing came of the search."""
    reasons = list(ledger.record.failures().values())
    return reasons[0] if reasons else "no trial was planned"
