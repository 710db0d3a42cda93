"""`paretoprune prune`: one policy alone, without a search; resumable by the same command."""

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
from ..execution.messages import LogFunction
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
from ..trial.run import execute_trial
from .finalize import measure_test_metrics
from .ineffective_settings import without_effect
from .prepare import LoadedInputs, check_weights_file, data_digest, load_inputs, prepare_search
from .progress import SearchProgress
from .search import RunInputs, check_by_object

SCHEMA = 1
PRUNE_WORK_FOLDER = "work"  # below --out: the dense network, the evidence, the steps
FLOPS_RATIO_PER_STEP = (
    0.95  # of the FLOPs stays in a step, where an accuracy alone ends the schedule
)


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What the command line asks for besides the settings that a search has too."""

    settings: SearchSettings
    policy: Policy
    out: Path
    min_accuracy: float | None = None

    def check(self) -> None:
        """Refuse what no schedule could do."""
        self.settings.check_numbers()
        check_weights_file(self.settings.weights)
        if self.settings.target() == Target() and self.min_accuracy is None:
            raise UserError(
                "a size or an accuracy must be asked for, got neither; "
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
                "--min-accuracy needs a schedule in steps, got one shot; "
                "add --steps 10, or take --policy gradually-global"
            )

    def identity(self, inputs: LoadedInputs) -> dict[str, object]:
        """What a second call must repeat to go on."""
        chosen = replace(self.settings, quiet=False, out=None)
        return {
            "settings": chosen.to_json(),
            "policy": self.policy.to_json(),
            "min_accuracy": self.min_accuracy,
            "data": data_digest(inputs.data),
            "model": None if inputs.model is None else weights_digest(inputs.model),
        }


def resolve_policy(
    name: str | Policy, target: Target, *, steps: int | None = None, refit: bool | None = None
) -> Policy:
    """A preset for the target, a control, or a policy in a JSON file; `steps` makes it gradual."""
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
    """Prune, show the figures, and return the exit code."""
    stopping = SignalHandler()
    try:
        with SearchProgress(quiet=request.settings.quiet) as progress, stopping.installed():
            evaluation, dense = prune_with_policy(request, RunInputs(progress))
    except StopRequested as stop:
        print(f"stopped; the same command goes on from {request.out}")
        return stop.exit_code
    show_pruned(evaluation, dense, request.out, make_console())
    return 0


def prune_with_policy(
    request: PruneRequest, run_inputs: RunInputs
) -> tuple[Evaluation, DenseMetrics]:
    """Prepare, carry out the one trial, measure it on the test split, write the folder."""
    request.check()
    check_by_object(request.settings, run_inputs)
    plugins = tuple(read_plugin(path) for path in request.settings.plugin)
    with plugins_loaded(plugins):
        inputs = load_inputs(request.settings, model=run_inputs.model, data=run_inputs.data)
        for line in without_effect(request.settings, model_given=run_inputs.model is not None):
            run_inputs.progress.log(line)
        made = not_there(request.out / PRUNE_WORK_FOLDER)
        run = open_work_folder(request, inputs)
        refusing = (
            remove_if_unstarted(run, made) if made else nullcontext()
        )  # what was begun before stays
        with lock_run(run), refusing, thread_limit(DeviceConfig()):
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
    """The work itself, in a folder that an interrupted call is taken up from."""
    prepared = prepare_search(
        inputs, run, plugins, lambda _: [request.policy], local_executors(log)
    )
    job = prune_trial_spec(request, prepared.context)

    def on_step(present: PrunedState, accuracy: float | None) -> None:
        macs, params = prepared.context.space.cost_model.cost_fractions(present.keep)
        found = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
        log(
            f"  step {present.step} of {job.policy.steps}: FLOPs {macs:.1%}, "
            f"params {params:.1%}{found}"
        )

    log(f"pruning: {describe_policy(job.policy)}")
    carried = replace(execute_trial(job, prepared.context, on_step=on_step).evaluation, trial=None)
    course = read_gate_history(run, carried)
    if course is not None and course.describe_last_step():
        log(f"  gates: {course.describe_last_step()}")
    figures = measure_test_metrics(
        [DENSE_PATH, carried.path], prepared.context, LocalExecutor(log)
    )
    dense = with_test_metrics(prepared.dense, figures)
    evaluation = with_test_metrics(carried, figures)
    copy_network(run.root / evaluation.path, evaluation, dense, request.out, run.dense)
    record = {"schema": SCHEMA, "evaluation": evaluation.to_json(), "dense": asdict(dense)}
    write_json_atomic(request.out / "evaluation.json", record)
    return evaluation, dense


def open_work_folder(request: PruneRequest, inputs: LoadedInputs) -> RunFolder:
    """The folder of an interrupted call with the same settings, or a new one."""
    run = RunFolder(request.out / PRUNE_WORK_FOLDER)
    wanted = json.loads(json.dumps(request.identity(inputs)))
    if not run.config.is_file():
        if request.out.is_dir() and any(
            path.name != PRUNE_WORK_FOLDER for path in request.out.iterdir()
        ):
            raise UserError(f"--out must be an empty folder, got {request.out}; name a new one")
        run = create_run_folder(run.root)
        write_json_atomic(run.config, {"schema": SCHEMA, **wanted})
        return run
    kept = json.loads(run.config.read_text())
    for name, value in wanted.items():
        if kept.get(name) != value:
            raise UserError(
                f"--out must be a new folder, or that of the same command, got {request.out} "
                f"with another {name}; repeat the command or name a new folder"
            )
    return run


def prune_trial_spec(request: PruneRequest, context: TrialContext) -> TrialSpec:
    """The one trial; an accuracy alone lets it go down to the smallest network in small steps."""
    policy, target = request.policy, request.settings.target()
    if target == Target():
        lowest, dense = context.space.min_cost()[0], context.space.cost_model.dense[0]
        steps = math.ceil(math.log(lowest / dense) / math.log(FLOPS_RATIO_PER_STEP))
        target, policy = Target(flops=lowest), replace(policy, steps=max(policy.steps, steps))
    seed = trial_seed(request.settings.seed)
    return TrialSpec(0, policy, target, seed, number=0, min_accuracy=request.min_accuracy)
