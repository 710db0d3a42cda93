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
from ...spaces.io.atomic_write import write_json
from ...spaces.io.validation import shown
from ...spaces.policy.policy import CONTROLS, Policy, policy_from_json, presets_for
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Dense
from ...trainers.pruning.iterative import Present
from ...trainers.runtime.device import Machine, threads
from ...trainers.training.checkpoint import weights_digest
from ..config.settings import SearchSettings
from ..execution.executor import Here, alone
from ..execution.messages import Say
from ..execution.signals import Stopped, Stopping
from ..optimizer.plugins import Plugin, plugged, read_plugin
from ..optimizer.target_plan import seed_of_trials
from ..results.formatting import plain_console, show_pruned, words
from ..results.model_folder import copy_network
from ..results.report_builder import course_in
from ..storage.run_folder import RunFolder, create_run, given_back, locked, not_there
from ..storage.trial_records import DENSE, with_figures
from ..storage.trial_spec import Job
from ..trial.context import Context
from ..trial.run import carry_out
from .finalize import measured
from .ineffective_settings import without_effect
from .prepare import Inputs, data_digest, load_inputs, prepare_search, weights_exist
from .progress import Progress
from .search import Given, check_by_object

SCHEMA = 1
WORK = "work"  # below --out: the dense network, the evidence, the steps
STEP_SHARE = 0.95  # of the FLOPs stays in a step, where an accuracy alone ends the schedule


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
        weights_exist(self.settings.weights)
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

    def identity(self, inputs: Inputs) -> dict[str, object]:
        """What a second call must repeat to go on."""
        chosen = replace(self.settings, quiet=False, out=None)
        return {
            "settings": chosen.to_json(),
            "policy": self.policy.to_json(),
            "min_accuracy": self.min_accuracy,
            "data": data_digest(inputs.data),
            "model": None if inputs.model is None else weights_digest(inputs.model),
        }


def policy_named(
    name: str | Policy, target: Target, *, steps: int | None = None, refit: bool | None = None
) -> Policy:
    """A preset for the target, a control, or a policy in a JSON file; `steps` makes it gradual."""
    known = {**presets_for(target), **CONTROLS}
    if isinstance(name, Policy):
        policy = name
    elif not isinstance(name, str):
        raise UserError(
            f"--policy must be a name or a Policy, got {shown(name)}; pass Policy('l2')"
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
    stopping = Stopping()
    try:
        with Progress(quiet=request.settings.quiet) as progress, stopping.listening():
            evaluation, dense = prune(request, Given(progress))
    except Stopped as stop:
        print(f"stopped; the same command goes on from {request.out}")
        return stop.exit_code
    show_pruned(evaluation, dense, request.out, plain_console())
    return 0


def prune(request: PruneRequest, given: Given) -> tuple[Evaluation, Dense]:
    """Prepare, carry out the one trial, measure it on the test split, write the folder."""
    request.check()
    check_by_object(request.settings, given)
    plugins = tuple(read_plugin(path) for path in request.settings.plugin)
    with plugged(plugins):
        inputs = load_inputs(request.settings, model=given.model, data=given.data)
        for line in without_effect(request.settings, model_given=given.model is not None):
            given.progress.say(line)
        made = not_there(request.out / WORK)
        run = open_work(request, inputs)
        refusing = given_back(run, made) if made else nullcontext()  # what was begun before stays
        with locked(run), refusing, threads(Machine()):
            evaluation, dense = prune_in(run, request, inputs, plugins, given.progress.say)
    shutil.rmtree(run.root)
    return evaluation, dense


def prune_in(
    run: RunFolder,
    request: PruneRequest,
    inputs: Inputs,
    plugins: tuple[Plugin, ...],
    say: Say,
) -> tuple[Evaluation, Dense]:
    """The work itself, in a folder that an interrupted call is taken up from."""
    prepared = prepare_search(inputs, run, plugins, lambda _: [request.policy], alone(say))
    job = job_of(request, prepared.context)

    def on_step(present: Present, accuracy: float | None) -> None:
        macs, params = prepared.context.space.price.fraction(present.keep)
        found = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
        say(
            f"  step {present.step} of {job.policy.steps}: FLOPs {macs:.1%}, "
            f"params {params:.1%}{found}"
        )

    say(f"pruning: {words(job.policy)}")
    carried = replace(carry_out(job, prepared.context, on_step=on_step).evaluation, trial=None)
    course = course_in(run, carried)
    if course is not None and course.last_step():
        say(f"  gates: {course.last_step()}")
    figures = measured([DENSE, carried.path], prepared.context, Here(say))
    dense = with_figures(prepared.dense, figures)
    evaluation = with_figures(carried, figures)
    copy_network(run.root / evaluation.path, evaluation, dense, request.out, run.dense)
    record = {"schema": SCHEMA, "evaluation": evaluation.to_json(), "dense": asdict(dense)}
    write_json(request.out / "evaluation.json", record)
    return evaluation, dense


def open_work(request: PruneRequest, inputs: Inputs) -> RunFolder:
    """The folder of an interrupted call with the same settings, or a new one."""
    run = RunFolder(request.out / WORK)
    wanted = json.loads(json.dumps(request.identity(inputs)))
    if not run.config.is_file():
        if request.out.is_dir() and any(path.name != WORK for path in request.out.iterdir()):
            raise UserError(f"--out must be an empty folder, got {request.out}; name a new one")
        run = create_run(run.root)
        write_json(run.config, {"schema": SCHEMA, **wanted})
        return run
    kept = json.loads(run.config.read_text())
    for name, value in wanted.items():
        if kept.get(name) != value:
            raise UserError(
                f"--out must be a new folder, or that of the same command, got {request.out} "
                f"with another {name}; repeat the command or name a new folder"
            )
    return run


def job_of(request: PruneRequest, context: Context) -> Job:
    """The one trial; an accuracy alone lets it go down to the smallest network in small steps."""
    policy, target = request.policy, request.settings.target()
    if target == Target():
        lowest, dense = context.space.lowest()[0], context.space.price.dense[0]
        steps = math.ceil(math.log(lowest / dense) / math.log(STEP_SHARE))
        target, policy = Target(flops=lowest), replace(policy, steps=max(policy.steps, steps))
    seed = seed_of_trials(request.settings.seed)
    return Job(0, policy, target, seed, number=0, min_accuracy=request.min_accuracy)
