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
from ...spaces.allocations.decode import PruningSpace
from ...spaces.errors import UserError, as_called
from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.policy.policy import CONTROL_POLICIES, Policy
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front
from ...trainers.data.image_options import options_in
from ...trainers.data.types import DataSplits
from ...trainers.runtime.device import DeviceConfig, thread_limit
from ..config.errors import (
    DiskFullError,
    DiskFullInterrupt,
    WorkersDiedError,
    interrupt_on_full_disk,
)
from ..config.settings import SearchSettings
from ..execution.executor import Executors, RayExecutor, executors_for
from ..execution.fd_redirect import redirect_output
from ..execution.ray_runtime import RayRuntime, ray_runtime_for
from ..execution.signals import SignalHandler, StopRequested
from ..optimizer.plugins import Plugin, plugins_loaded, read_plugin
from ..optimizer.screening import GROUP_WEIGHT_SCORE, Proposal
from ..optimizer.trial_store import TrialStore
from ..results.utilization import worker_utilization
from ..storage.artifacts import absolute_url, check_artifacts_url
from ..storage.journal_repair import repair_journal
from ..storage.run_folder import (
    CONFIG_SCHEMA,
    RunFolder,
    create_run_folder,
    default_run_folder,
    lock_run,
    not_there,
    open_run,
    remove_if_unstarted,
    update_config_settings,
)
from ..storage.trial_records import read_trial_records
from ..storage.trial_spec import TrialSpec
from ..trial.context import TrialContext
from ..trial.timing import Timer
from .calibration_budget import SCREENING_DEADLINE_SHARE, with_default_images
from .deadline import DENSE, Deadline
from .finalize import delete_unneeded_weights, finalize_search, write_results
from .ineffective_settings import without_effect
from .initial_trials import open_trial_store, policy_space_for, requested_spread
from .prepare import (
    LoadedInputs,
    PreparedSearch,
    check_images,
    check_weights_file,
    data_digest,
    load_inputs,
    prepare_search,
)
from .progress import SearchProgress
from .resume import IMAGES, resume_command, resumed_settings, with_kept
from .reuse import link_from_related_runs
from .warm_start import WARM_START_KEY, proposals_to_json


class AllTrialsFailedError(RuntimeError):
    """No trial came to an end; the text is the first reason."""


@dataclass(frozen=True, slots=True, eq=False)
class RunInputs:
    """What comes besides the settings: objects from Python, earlier runs, how to show progress."""

    progress: SearchProgress
    model: nn.Module | None = None
    data: DataSplits | None = None
    warm_start: tuple[Proposal, ...] = ()  # policies of an earlier front, tried first
    related_runs: tuple[Path, ...] = ()  # earlier runs of the same dense network and data


def new_search(settings: SearchSettings, run_inputs: RunInputs) -> tuple[RunFolder, Front]:
    """Run a new search in a new folder."""
    watch = Timer()
    settings.check()
    check_by_object(settings, run_inputs)
    asked = settings
    settings = replace(with_default_images(settings), artifacts=absolute_url(settings.artifacts))
    check_weights_file(settings.weights)
    check_images(settings.images(), settings.data, run_inputs.data)
    plugins = tuple(read_plugin(path) for path in settings.plugin)
    data_name = settings.data if run_inputs.data is None else run_inputs.data.name
    model_name = settings.model if run_inputs.model is None else "model"
    folder = settings.out or default_run_folder(data_name, model_name)
    made = not_there(folder)
    with plugins_loaded(plugins):
        idle = list(without_effect(asked, model_given=run_inputs.model is not None))
    run = create_run_folder(folder)

    def load() -> LoadedInputs:
        inputs = load_inputs(settings, model=run_inputs.model, data=run_inputs.data)
        for line in idle:
            run_inputs.progress.log(line)
        write_json_atomic(run.config, build_config(inputs, run, plugins, run_inputs))
        link_from_related_runs(
            run,
            run_inputs.related_runs,
            dense=settings.weights is None,
            max_minutes=settings.max_minutes,
        )
        return inputs

    with lock_run(run), remove_if_unstarted(run, made), plugins_loaded(plugins):
        check_artifacts_url(settings.artifacts, run.root)
        return run, run_driver(Startup(settings, load, watch), run, plugins, run_inputs.progress)


def check_by_object(settings: SearchSettings, given: RunInputs) -> None:
    """Refuse a file for what came as an object, which nobody would read."""
    if given.model is not None and settings.weights is not None:
        raise UserError(
            f"--weights must be left out where the model is a network, got {settings.weights}; "
            "load them into the network, or name the model"
        )
    if given.data is not None and settings.download:
        raise UserError("--download is for data by name, got data as objects; leave it out")


def build_config(
    inputs: LoadedInputs, run: RunFolder, plugins: tuple[Plugin, ...], run_inputs: RunInputs
) -> dict[str, Any]:
    """What a run folder keeps of its beginning."""
    return {
        "schema": CONFIG_SCHEMA,
        "version": __version__,
        "settings": replace(inputs.settings, out=run.root.resolve()).to_json(),
        "model_given": run_inputs.model is not None,
        "data_given": run_inputs.data is not None,
        "data_sha256": data_digest(inputs.data),
        IMAGES: asdict(options_in(inputs.data)),
        "plugins": [{"path": p.path, "sha256": p.sha256} for p in plugins],
        WARM_START_KEY: proposals_to_json(run_inputs.warm_start),
    }


def resume_search(
    path: Path, run_inputs: RunInputs, repeated: dict[str, Any] | None = None
) -> tuple[RunFolder, Front]:
    """Go on with a run: nothing finished is lost or run twice.

    `repeated` are the options given again: what a run folder names is never imported by itself.
    """
    watch = Timer()
    run, config = open_run(path)
    kept, plugins = resumed_settings(
        config, repeated or {}, model=run_inputs.model, data=run_inputs.data
    )
    settings = with_default_images(kept)

    def load() -> LoadedInputs:
        inputs = load_inputs(settings, model=run_inputs.model, data=run_inputs.data)
        inputs = replace(inputs, data=with_kept(inputs.data, config))
        if data_digest(inputs.data) != config["data_sha256"]:
            raise UserError(
                f"a resumed run must be given the data it began with, got other data for {path}; "
                "pass the same data, or start a new search"
            )
        if settings.trials != config["settings"].get("trials"):
            update_config_settings(run, trials=settings.trials)
        return inputs

    with lock_run(run), plugins_loaded(plugins):
        front = finished_front(run, settings.trials)
        if front is not None:
            load()  # other data than the run's are refused here too
            write_results(front, run)
            more = f"all of its {settings.trials} trials are over, more --trials go on with it"
            run_inputs.progress.log(f"this run is finished: {more}")
            return run, front
        return run, run_driver(Startup(settings, load, watch), run, plugins, run_inputs.progress)


def finished_front(run: RunFolder, trials: int) -> Front | None:
    """The front of a run that has come to the end of so many trials; None of any other."""
    repair_journal(run.journal)
    record = read_trial_records(run.journal)
    return record.front() if record and record.concluded == trials else None


@dataclass(frozen=True, slots=True)
class Startup:
    """What a search begins with: its data are loaded while Ray starts."""

    settings: SearchSettings
    load: Callable[[], LoadedInputs]
    timer: Timer


def run_driver(
    startup: Startup, run: RunFolder, plugins: tuple[Plugin, ...], progress: SearchProgress
) -> Front:
    """Prepare, run every trial that is not settled yet, conclude."""
    settings, watch, stopping = startup.settings, startup.timer, SignalHandler()
    limit = Deadline(settings.max_minutes)
    with stopping.installed(), progress:
        try:
            with (
                interrupt_on_full_disk(),
                thread_limit(DeviceConfig()),
                redirect_output(run.log),
                ray_runtime_for(settings, run) as ray_start,
            ):
                ray_start.start()
                crew = executors_for(
                    RayExecutor(
                        ray_start, settings, run.root, plugins, stopping, progress.log, watch
                    )
                )
                watch.lap("start")
                inputs = startup.load()
                watch.lap("data")
                prepared, ledger = prepare_trial_store(inputs, run, plugins, crew, limit)
                watch.lap("screening")
                ledger.record_start(watch.spans())
                progress.begin(ledger, settings.target(), prepared.dense, limit.ends_at)
                if not ledger.is_finished:
                    scene = RunContext(run, progress, stopping, ray_start, limit)
                    run_trials(ledger, prepared.context, settings, scene)
                if not ledger.records.evaluations():
                    raise AllTrialsFailedError(first_failure(ledger))
                return finalize_search(ledger, prepared.context, run, crew.dense)
        except StopRequested as stop:
            stop.run = run if run.config.exists() else None
            raise
        except DiskFullInterrupt as full:
            what = f"no room is left to write to ({full})"
            raise DiskFullError(resumable_error_message(what, "make room", run)) from full
        except WorkersDiedError as died:
            remedy = "free memory for them or take fewer --workers"
            raise WorkersDiedError(resumable_error_message(str(died), remedy, run)) from died


def resumable_error_message(trouble: str, remedy: str, run: RunFolder) -> str:
    """The one line about what ended a search that is not over."""
    if not run.config.exists():
        return as_called(f"{trouble}; {remedy} and start again")
    again = resume_command(run.root, open_run(run.root)[1])
    return as_called(f"{trouble}; nothing finished is lost: {remedy}, then go on with {again}")


def prepare_trial_store(
    inputs: LoadedInputs,
    run: RunFolder,
    plugins: tuple[Plugin, ...],
    executors: Executors,
    deadline: Deadline,
) -> tuple[PreparedSearch, TrialStore]:
    """Everything before the first trial."""
    settings = inputs.settings

    def reading(space: PruningSpace) -> list[Policy]:
        requested_spread(settings, space, lambda _: None)  # refused before anything is trained
        screened = [Policy(GROUP_WEIGHT_SCORE)] if settings.screening else []
        return [
            *policy_space_for(settings, space).policies_to_measure,
            *CONTROL_POLICIES.values(),
            *screened,
        ]

    trained = inputs.model is not None or settings.weights is not None or run.dense.exists()
    prepared = prepare_search(inputs, run, plugins, reading, executors)
    late = partial(
        deadline.is_share_exceeded,
        SCREENING_DEADLINE_SHARE if trained else DENSE + SCREENING_DEADLINE_SHARE,
    )
    return prepared, open_trial_store(prepared, settings, run, executors.log, late)


@dataclass(frozen=True, slots=True, eq=False)
class RunContext:
    """Where trials are run, who watches, and until when."""

    run: RunFolder
    progress: SearchProgress
    signals: SignalHandler
    ray_runtime: RayRuntime
    deadline: Deadline


def run_trials(
    store: TrialStore, context: TrialContext, settings: SearchSettings, run_context: RunContext
) -> None:
    """Let Ray Tune run what the ledger asks for."""
    run, progress, stopping = run_context.run, run_context.progress, run_context.signals

    def on_trial(job: TrialSpec, outcome: Evaluation | str) -> None:
        progress.on_trial(job, outcome)
        if isinstance(outcome, Evaluation) and not (job.control or job.continues):
            delete_unneeded_weights(store, run)

    with stopping.shield():  # Ray and the ledger are left between two steps of Tune only
        scratch = run_context.ray_runtime.wait()
        stopping.reinstall()
        from ..execution.resources import missing_resources_message
        from ..execution.tune_runner import (
            StopCallback,
            gpus_for_trial,
            run_trials_with_tune,
            trial_concurrency,
        )
        from ..execution.tune_searcher import TrialStoreSearcher
        from ..optimizer.pareto_halving import ParetoHalving

        searcher = TrialStoreSearcher(
            store, context.root, on_trial, until=run_context.deadline.ends_at
        )
        workers = trial_concurrency(context, settings)
        order = (
            "" if workers == 1 else "; the same seed gives the same front with --workers 1 only"
        )
        progress.log(f"running trials on {workers} workers{order}")
        if late := run_context.deadline.late_start_message():
            progress.log(late)
        missing = missing_resources_message(settings, gpus_for_trial(context, settings))
        if missing is not None:
            progress.log(missing)
        halving, since = ParetoHalving(store.records.rungs()), time.time()
        try:
            run_trials_with_tune(
                searcher, context, settings, StopCallback(stopping), scratch, halving
            )
        except StopRequested:
            store.interrupt_running()
            progress.close()
            progress.log("stopping; a second Ctrl-C leaves at once")
            raise
        workers = max(
            workers, trial_concurrency(context, settings)
        )  # nodes may have come meanwhile
        if told := worker_utilization(store.records, workers, since):
            progress.log(told.sentence())


def first_failure(store: TrialStore) -> str:
    """Why nothing came of the search."""
    reasons = list(store.records.failures().values())
    return reasons[0] if reasons else "no trial was planned"
