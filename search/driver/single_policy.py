"""`paretoprune prune`: apply one policy without a search; the same command resumes it."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...spaces.cost.target import Target
from ...spaces.errors import UserError
from ...spaces.io.atomic_write import write_json_atomic
from ...spaces.io.validation import short_repr
from ...spaces.policy.policy import CONTROL_POLICIES, Policy, policy_from_json, presets_for
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import DenseMetrics
from ...trainers.pruning.iterative import PrunedState
from ...trainers.runtime.device import DeviceConfig, thread_limit
from ...trainers.training.checkpoint import weights_digest
from ..config.settings import SearchSettings
from ..execution.executor import LocalExecutor, local_executors
from ..execution.progress_messages import LogFunction
from ..execution.signals import SignalHandler, StopRequested
from ..optimizer.plan import trial_seed
from ..optimizer.plugins import Plugin, plugins_loaded, read_plugin
from ..results.formatting import describe_policy, make_console, show_pruned
from ..results.model_folder import copy_network
from ..results.report_builder import read_gate_history
from ..storage.run_folder import (
    RunFolder,
    create_run_folder,
    lock_run,
    not_there,
    remove_if_unstarted,
)
from ..storage.trial_records import DENSE_PATH, with_test_metrics
from ..storage.trial_spec import TrialSpec
from ..trial.context import TrialContext
from ..trial.execute import execute_trial
from .finalize import measure_test_metrics
from .ineffective_settings import without_effect
from .prepare import (
    LoadedInputs,
    check_inputs,
    check_weights_file,
    data_digest,
    load_inputs,
    prepare_search,
)
from .progress import SearchProgress
from .search import RunInputs, check_objects

SCHEMA = 1
PRUNE_WORK_FOLDER = "work"  # below --out: dense weights, measurements, steps
FLOPS_RATIO_PER_STEP = 0.95  # FLOPs after a step, if only --min-accuracy ends the schedule


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """A request to prune with one policy.

    Args:
        settings: Model, data, target and training, as for a search.
        policy: How to prune and fine-tune.
        out: The folder for the pruned model; it must be new or empty.
        min_accuracy: Stop a gradual schedule before the validation accuracy falls below this.
    """

    settings: SearchSettings
    policy: Policy
    out: Path
    min_accuracy: float | None = None

    def check(self) -> None:
        """Raise `UserError` for settings that no schedule can satisfy."""
        self.settings.check_numbers()
        check_weights_file(self.settings.weights)
        if self.settings.target() == Target() and self.min_accuracy is None:
            raise UserError(
                "a target size or a minimum accuracy must be given, got neither; "
                "write --target-flops 0.4, --target-params 0.4 or --min-accuracy 0.9"
            )
        if self.min_accuracy is None:
            return
        if not 0 < self.min_accuracy < 1:
            raise UserError(
                f"--min-accuracy must be in (0, 1), got {self.min_accuracy}; "
                "for ninety percent write 0.9"
            )
        if self.policy.schedule != "gradual":
            raise UserError(
                "--min-accuracy needs a schedule with steps, got one-shot; "
                "add --steps 10, or use --policy gradually-global"
            )

    def identity(self, inputs: LoadedInputs) -> dict[str, object]:
        """Return what a second call must repeat to resume."""
        settings = replace(self.settings, quiet=False, out=None)
        return {
            "settings": settings.to_json(),
            "policy": self.policy.to_json(),
            "min_accuracy": self.min_accuracy,
            "data": data_digest(inputs.data),
            "model": None if inputs.model is None else weights_digest(inputs.model),
        }


def resolve_policy(
    name: str | Policy, target: Target, *, steps: int | None = None, refit: bool | None = None
) -> Policy:
    """Return the policy of a name or a file.

    Args:
        name: A preset, a control, a JSON file of a policy, or a `Policy`.
        target: The target, which decides which presets there are.
        steps: Make the schedule gradual with this many steps; 1 makes it one-shot.
        refit: Whether weights are refitted by least squares after each cut.

    Returns:
        The policy with `steps` and `refit` applied.

    Raises:
        UserError: there is no such policy.

    Example:
        >>> resolve_policy("uniform", Target(flops=0.4), steps=10).schedule
        'gradual'
    """
    known = {**presets_for(target), **CONTROL_POLICIES}
    if isinstance(name, Policy):
        policy = name
    elif not isinstance(name, str):
        raise UserError(
            f"--policy must be a name or a Policy, got {short_repr(name)}; pass Policy('l2')"
        )
    elif name in known:
        policy = known[name]
    elif name.endswith(".json"):
        try:
            policy = policy_from_json(json.loads(Path(name).read_text()))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"--policy must be a JSON file of a policy, got {error}") from None
    else:
        raise UserError(
            f"--policy must be one of {', '.join(known)} or a file NAME.json, got {name!r}"
        )
    if refit is not None:
        policy = replace(policy, refit=refit)
    if steps is None:
        return policy
    return replace(policy, steps=steps, schedule="gradual" if steps > 1 else "one-shot")


def prune_command(request: PruneRequest) -> int:
    """Prune, print the metrics, and return the exit code."""
    signals = SignalHandler()
    try:
        with SearchProgress(quiet=request.settings.quiet) as progress, signals.installed():
            evaluation, dense = prune_with_policy(request, RunInputs(progress))
    except StopRequested as stop:
        print(f"stopped; the same command continues from {request.out}")
        return stop.exit_code
    show_pruned(evaluation, dense, request.out, make_console())
    return 0


def prune_with_policy(
    request: PruneRequest, run_inputs: RunInputs
) -> tuple[Evaluation, DenseMetrics]:
    """Prune with one policy, evaluate on the test split, and write the model folder.

    Args:
        request: The policy, the settings and the output folder.
        run_inputs: Progress display, and the model and data if they are objects.

    Returns:
        The evaluation of the pruned model and the metrics of the dense model.

    Raises:
        UserError: a setting is not valid, or the output folder is not empty.

    Example:
        >>> request = PruneRequest(SearchSettings(target_flops="0.4"), Policy("l2"), Path("small"))
        >>> prune_with_policy(request, RunInputs(SearchProgress(quiet=True)))  # doctest: +SKIP
    """
    request.check()
    check_objects(request.settings, run_inputs)
    plugins = tuple(read_plugin(path) for path in request.settings.plugin)
    with plugins_loaded(plugins):
        inputs = load_inputs(request.settings, model=run_inputs.model, data=run_inputs.data)
        for line in without_effect(request.settings, model_given=run_inputs.model is not None):
            run_inputs.progress.log(line)
        made = not_there(request.out / PRUNE_WORK_FOLDER)
        run = open_work_folder(request, inputs)
        cleanup = remove_if_unstarted(run, made) if made else nullcontext()  # keep earlier work
        with lock_run(run), cleanup, thread_limit(DeviceConfig()):
            evaluation, dense = run_prune_trial(
                run, request, inputs, plugins, run_inputs.progress.log
            )
    shutil.rmtree(run.root)
    return evaluation, dense


def run_prune_trial(
    run: RunFolder,
    request: PruneRequest,
    inputs: LoadedInputs,
    plugins: tuple[Plugin, ...],
    log: LogFunction,
) -> tuple[Evaluation, DenseMetrics]:
    """Prune in the work folder, which lets an interrupted call resume, and write the results."""
    checked = check_inputs(inputs, run, lambda _: [request.policy], log)
    prepared = prepare_search(checked, run, plugins, local_executors(log))
    spec = prune_trial_spec(request, prepared.context)

    def on_step(state: PrunedState, accuracy: float | None) -> None:
        macs, params = prepared.context.space.cost_model.cost_fractions(state.keep)
        suffix = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
        log(
            f"  step {state.step} of {spec.policy.steps}: FLOPs {macs:.1%}, "
            f"params {params:.1%}{suffix}"
        )

    log(f"pruning: {describe_policy(spec.policy)}")
    result = execute_trial(spec, prepared.context, on_step=on_step)
    evaluation = replace(result.evaluation, trial=None)
    gate_history = read_gate_history(run, evaluation)
    if gate_history is not None and gate_history.describe_last_step():
        log(f"  gates: {gate_history.describe_last_step()}")
    metrics = measure_test_metrics(
        [DENSE_PATH, evaluation.path], prepared.context, LocalExecutor(log)
    )
    dense = with_test_metrics(prepared.dense, metrics)
    evaluation = with_test_metrics(evaluation, metrics)
    copy_network(run.root / evaluation.path, evaluation, dense, request.out, run.dense)
    record = {"schema": SCHEMA, "evaluation": evaluation.to_json(), "dense": asdict(dense)}
    write_json_atomic(request.out / "evaluation.json", record)
    return evaluation, dense


def open_work_folder(request: PruneRequest, inputs: LoadedInputs) -> RunFolder:
    """Open the work folder of an interrupted call with the same settings, or create one."""
    run = RunFolder(request.out / PRUNE_WORK_FOLDER)
    identity = json.loads(json.dumps(request.identity(inputs)))
    if not run.config.is_file():
        if request.out.is_dir() and any(
            path.name != PRUNE_WORK_FOLDER for path in request.out.iterdir()
        ):
            raise UserError(f"--out must be an empty folder, got {request.out}; name a new one")
        run = create_run_folder(run.root)
        write_json_atomic(run.config, {"schema": SCHEMA, **identity})
        return run
    stored = json.loads(run.config.read_text())
    for name, value in identity.items():
        if stored.get(name) != value:
            raise UserError(
                f"--out must be a new folder or the folder of the same command, got {request.out} "
                f"with another {name}; repeat the command or name a new folder"
            )
    return run


def prune_trial_spec(request: PruneRequest, context: TrialContext) -> TrialSpec:
    """Return the trial; with --min-accuracy alone, it prunes in small steps to the minimum."""
    policy, target = request.policy, request.settings.target()
    if target == Target():
        lowest, dense = context.space.min_cost()[0], context.space.cost_model.dense[0]
        steps = math.ceil(math.log(lowest / dense) / math.log(FLOPS_RATIO_PER_STEP))
        target, policy = Target(flops=lowest), replace(policy, steps=max(policy.steps, steps))
    seed = trial_seed(request.settings.seed)
    return TrialSpec(0, policy, target, seed, number=0, min_accuracy=request.min_accuracy)
