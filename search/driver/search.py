"""The driver: run one search from its settings to its front."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ...spaces.allocations.decode import PruningSpace
from ...spaces.errors import UserError, as_called
from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.policy.policy import CONTROL_POLICIES, Policy
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front
from ...spaces.version import VERSION
from ...trainers.data.image_options import options_in
from ...trainers.data.splits import DataSplits
from ...trainers.runtime.device import DeviceConfig, thread_limit
from ..config.errors import (
    DiskFullError,
    DiskFullInterrupt,
    WorkersDiedError,
    interrupt_on_full_disk,
)
from ..config.settings import SearchSettings
from ..execution.executor import Executors, LocalExecutor
from ..execution.fd_redirect import redirect_output
from ..execution.progress_messages import log_starts_once
from ..execution.ray_runtime import RayRuntime, local_ray_cpus
from ..execution.signals import SignalHandler, StopRequested
from ..optimizer.plugins import Plugin, plugins_loaded, read_plugin
from ..optimizer.screening import GROUP_WEIGHT_SCORE, Proposal
from ..optimizer.trial_store import TrialStore
from ..results.utilization import worker_utilization
from ..storage.artifacts import absolute_url, check_artifacts_url
from ..storage.journal import repair_journal
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
from .deadline import DENSE, Deadline
from .finalize import delete_unneeded_weights, finalize_search, write_results
from .ineffective_settings import without_effect
from .measurement_budget import SCREENING_DEADLINE_SHARE, with_default_images
from .open_store import open_trial_store, policy_space_for, requested_spread
from .prepare import (
    CheckedInputs,
    LoadedInputs,
    check_images,
    check_inputs,
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
    """No trial succeeded; the message is the reason of the first failure."""


@dataclass(frozen=True, slots=True, eq=False)
class RunInputs:
    """What a search needs besides its settings.

    Args:
        progress: The progress display.
        model: The model, if it is an object instead of a name.
        data: The data, if they are an object instead of a name.
        warm_start: Policies of an earlier front, tried first.
        related_runs: Earlier runs of the same dense model and data, whose measurements are reused.
    """

    progress: SearchProgress
    model: nn.Module | None = None
    data: DataSplits | None = None
    warm_start: tuple[Proposal, ...] = ()
    related_runs: tuple[Path, ...] = ()


def new_search(settings: SearchSettings, run_inputs: RunInputs) -> tuple[RunFolder, Front]:
    """Run a new search in a new folder.

    Args:
        settings: The settings of the search.
        run_inputs: Progress display, objects from Python and earlier runs.

    Returns:
        The run folder and the front.

    Raises:
        UserError: a setting is not valid; nothing is left on disk then.
        AllTrialsFailedError: no trial succeeded.
        DiskFullError: the disk is full; the run can be resumed.
        WorkersDiedError: Ray lost all workers; the run can be resumed.
        StopRequested: SIGINT or SIGTERM; the run can be resumed.

    Example:
        >>> settings = SearchSettings(target_flops="0.4", trials=8)
        >>> run, front = new_search(
        ...     settings, RunInputs(SearchProgress(quiet=True))
        ... )  # doctest: +SKIP
    """
    timer = Timer()
    settings.check()
    check_objects(settings, run_inputs)
    requested = settings
    settings = replace(with_default_images(settings), artifacts=absolute_url(settings.artifacts))
    check_weights_file(settings.weights)
    check_images(settings.images(), settings.data, run_inputs.data)
    plugins = tuple(read_plugin(path) for path in settings.plugin)
    data_name = settings.data if run_inputs.data is None else run_inputs.data.name
    model_name = settings.model if run_inputs.model is None else "model"
    folder = settings.out or default_run_folder(data_name, model_name)
    missing = not_there(folder)
    with plugins_loaded(plugins):
        warnings = list(without_effect(requested, model_given=run_inputs.model is not None))
    run = create_run_folder(folder)

    def load() -> LoadedInputs:
        inputs = load_inputs(settings, model=run_inputs.model, data=run_inputs.data)
        for line in warnings:
            run_inputs.progress.log(line)
        write_json_atomic(run.config, build_config(inputs, run, plugins, run_inputs))
        link_from_related_runs(
            run,
            run_inputs.related_runs,
            dense=settings.weights is None,
            max_minutes=settings.max_minutes,
        )
        return inputs

    with lock_run(run), remove_if_unstarted(run, missing), plugins_loaded(plugins):
        check_artifacts_url(settings.artifacts, run.root)
        return run, run_driver(Startup(settings, load, timer), run, plugins, run_inputs.progress)


def check_objects(settings: SearchSettings, run_inputs: RunInputs) -> None:
    """Refuse options that have no effect on a model or data given as objects."""
    if run_inputs.model is not None and settings.weights is not None:
        raise UserError(
            f"--weights must be left out if the model is an object, got {settings.weights}; "
            "load them into the model, or pass the model by name"
        )
    if run_inputs.data is not None and settings.download:
        raise UserError("--download needs data by name, got data as an object; leave it out")


def build_config(
    inputs: LoadedInputs, run: RunFolder, plugins: tuple[Plugin, ...], run_inputs: RunInputs
) -> dict[str, Any]:
    """Return the content of config.json: all that a resumed run must repeat."""
    return {
        "schema": CONFIG_SCHEMA,
        "version": VERSION,
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
    """Resume a run: no finished trial is lost or run twice.

    Args:
        path: The run folder.
        run_inputs: Progress display, and the model and data if the run began with objects.
        repeated: Options that the user gave again; code that a run folder names is not imported.

    Returns:
        The run folder and the front.

    Raises:
        UserError: the options, the data or the plugins are not those of the run.
        AllTrialsFailedError: no trial succeeded.
        DiskFullError: the disk is full; the run can be resumed.
        WorkersDiedError: Ray lost all workers; the run can be resumed.
        StopRequested: SIGINT or SIGTERM; the run can be resumed.

    Example:
        >>> run, front = resume_search(
        ...     Path("runs/a"), RunInputs(SearchProgress(quiet=True)), {"trials": 64}
        ... )  # doctest: +SKIP
    """
    timer = Timer()
    run, config = open_run(path)
    stored, plugins = resumed_settings(
        config, repeated or {}, model=run_inputs.model, data=run_inputs.data
    )
    settings = with_default_images(stored)

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
            load()  # refuses other data
            write_results(front, run)
            run_inputs.progress.log(
                f"this run has finished all of its {settings.trials} trials; "
                "add more --trials to continue it"
            )
            return run, front
        return run, run_driver(Startup(settings, load, timer), run, plugins, run_inputs.progress)


def finished_front(run: RunFolder, trials: int) -> Front | None:
    """Return the front of a run that has finished so many trials, else None."""
    repair_journal(run.journal)
    records = read_trial_records(run.journal)
    return records.front() if records and records.concluded == trials else None


@dataclass(frozen=True, slots=True)
class Startup:
    """The settings of a search and how to load its inputs."""

    settings: SearchSettings
    load: Callable[[], LoadedInputs]
    timer: Timer


def run_driver(
    startup: Startup, run: RunFolder, plugins: tuple[Plugin, ...], progress: SearchProgress
) -> Front:
    """Check the inputs, start Ray, run all trials that are not settled yet, write the results."""
    settings, timer, signals = startup.settings, startup.timer, SignalHandler()
    deadline = Deadline(settings.max_minutes)
    with signals.installed(), progress:
        try:
            with interrupt_on_full_disk(), thread_limit(DeviceConfig()), redirect_output(run.log):
                timer.lap("start")
                inputs = startup.load()
                timer.lap("data")
                to_measure = partial(policies_to_measure, settings)
                checked = check_inputs(inputs, run, to_measure, progress.log)
                with started_ray(settings, run, signals) as scratch:
                    context = RunContext(run, progress, signals, scratch, deadline, timer)
                    return run_on_ray(checked, plugins, context)
        except StopRequested as stop:
            stop.run = run if run.config.exists() else None
            raise
        except DiskFullInterrupt as full:
            what = f"the disk is full ({full})"
            raise DiskFullError(resumable_error_message(what, "free space", run)) from full
        except WorkersDiedError as died:
            remedy = "free memory or use fewer --workers"
            raise WorkersDiedError(resumable_error_message(str(died), remedy, run)) from died


@contextmanager
def started_ray(
    settings: SearchSettings, run: RunFolder, signals: SignalHandler
) -> Iterator[Path]:
    """Start or join Ray for the block; yield the scratch folder for its files."""
    cpus = local_ray_cpus(settings)
    with RayRuntime(address=settings.address, cpus=cpus, token=run.token) as runtime:
        with signals.shield():
            scratch = runtime.start()
            signals.reinstall()
        yield scratch


@dataclass(frozen=True, slots=True, eq=False)
class RunContext:
    """What the driver needs while Ray runs: folders, progress, signals and time."""

    run: RunFolder
    progress: SearchProgress
    signals: SignalHandler
    scratch: Path  # for Ray's files
    deadline: Deadline
    timer: Timer


def run_on_ray(
    checked: CheckedInputs, plugins: tuple[Plugin, ...], run_context: RunContext
) -> Front:
    """Prepare the dense model and the trial store, run the trials, write the results."""
    settings, run = checked.inputs.settings, run_context.run
    progress, timer, deadline = run_context.progress, run_context.timer, run_context.deadline
    executors = make_executors(settings, plugins, run_context)
    is_dense_done = checked.is_trained or run.dense.exists()
    prepared = prepare_search(checked, run, plugins, executors)
    is_late = partial(
        deadline.is_share_exceeded,
        SCREENING_DEADLINE_SHARE if is_dense_done else DENSE + SCREENING_DEADLINE_SHARE,
    )
    store = open_trial_store(prepared, settings, run, progress.log, is_late)
    timer.lap("screening")
    store.record_start(timer.spans())
    progress.begin(store, settings.target(), prepared.dense, deadline.ends_at)
    if not store.is_finished:
        run_trials(store, prepared.context, settings, run_context)
    if not store.records.evaluations():
        raise AllTrialsFailedError(first_failure(store))
    return finalize_search(store, prepared.context, run, executors.dense)


def make_executors(
    settings: SearchSettings, plugins: tuple[Plugin, ...], run_context: RunContext
) -> Executors:
    """Measure in Ray workers; train the dense model there too if Ray is a cluster's.

    The driver of a cluster may be on a node without a GPU.
    """
    from ..execution.ray_executor import RayExecutor  # Ray is imported once it has started
    from ..execution.resources import cluster_trial_concurrency, requested_or_even_gpus

    cluster_trial_concurrency(settings, requested_or_even_gpus(settings))  # refused early
    log = run_context.progress.log
    in_ray = RayExecutor(settings, run_context.run.root, plugins, run_context.signals, log)
    return Executors(
        dense=LocalExecutor(log) if settings.address is None else in_ray,
        measurements=replace(in_ray, log=log_starts_once(log)),
        log=log,
        timer=run_context.timer,
    )


def policies_to_measure(settings: SearchSettings, space: PruningSpace) -> list[Policy]:
    """Return policies that together read all measurements of a search."""
    requested_spread(settings, space, lambda _: None)  # refused before anything is trained
    screened = [Policy(GROUP_WEIGHT_SCORE)] if settings.screening else []
    sampled = policy_space_for(settings, space).policies_to_measure
    return [*sampled, *CONTROL_POLICIES.values(), *screened]


def resumable_error_message(trouble: str, remedy: str, run: RunFolder) -> str:
    """Return the message about what ended a search early, with the command that resumes it."""
    if not run.config.exists():
        return as_called(f"{trouble}; {remedy} and start again")
    command = resume_command(run.root, open_run(run.root)[1])
    return as_called(f"{trouble}; no finished trial is lost; {remedy}, then run {command}")


def run_trials(
    store: TrialStore, context: TrialContext, settings: SearchSettings, run_context: RunContext
) -> None:
    """Run the trials of the store with Ray Tune."""
    from ..execution.resources import missing_resources_message
    from ..execution.tune_runner import (
        StopCallback,
        gpus_for_trial,
        run_trials_with_tune,
        trial_concurrency,
    )
    from ..execution.tune_searcher import TrialStoreSearcher
    from ..optimizer.pareto_halving import ParetoHalving

    run, progress, signals = run_context.run, run_context.progress, run_context.signals

    def on_trial(spec: TrialSpec, outcome: Evaluation | str) -> None:
        progress.on_trial(spec, outcome)
        if isinstance(outcome, Evaluation) and not (spec.control or spec.continues):
            delete_unneeded_weights(store, run)

    with signals.shield():  # a signal is raised between two steps of Tune only
        searcher = TrialStoreSearcher(
            store, context.root, on_trial, until=run_context.deadline.ends_at
        )
        workers = trial_concurrency(context, settings)
        note = "" if workers == 1 else "; only --workers 1 repeats a front from its seed"
        progress.log(f"running trials on {workers} workers{note}")
        if late := run_context.deadline.late_start_message():
            progress.log(late)
        missing = missing_resources_message(settings, gpus_for_trial(context, settings))
        if missing is not None:
            progress.log(missing)
        halving, since = ParetoHalving(store.records.rungs()), time.time()
        try:
            run_trials_with_tune(
                searcher, context, settings, StopCallback(signals), run_context.scratch, halving
            )
        except StopRequested:
            store.interrupt_running()
            progress.close()
            progress.log("stopping; a second Ctrl-C exits at once")
            raise
        workers = max(workers, trial_concurrency(context, settings))  # nodes may have joined
        if utilization := worker_utilization(store.records, workers, since):
            progress.log(utilization.sentence())


def first_failure(store: TrialStore) -> str:
    """Return the reason of the first failure."""
    reasons = list(store.records.failures().values())
    return reasons[0] if reasons else "no trial was planned"
