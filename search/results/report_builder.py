"""The report of a run, gathered from its folder alone: no network is built, no user code run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...analysis.report import Insights, Report, ReportedTrial, front_drawing, render_page
from ...analysis.report.measurements import measurement_plots
from ...spaces.errors import UserError
from ...spaces.graph.layout import Layout, layout_from_json
from ...spaces.io.atomic_write import write_bytes_atomic
from ...spaces.io.bounded_read import read_json
from ...spaces.policy.policy import CONTROL_POLICIES
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.gate_history import GATE_HISTORY_FILE, GateHistory, gate_history_from_json
from ...spaces.records.pareto_front import Front
from ...spaces.records.recipe import read_recipe
from ..storage.run_folder import RunFolder, open_run
from ..storage.trial_spec import trial_title
from .control_comparison import compare_with_controls
from .formatting import describe_policy, format_target
from .run_summary import RunSummary, run_insights, summarize_run


def report_command(path: Path, out: Path | None, figures: Sequence[Path]) -> None:
    """`paretoprune report`: the page, unless only figures are asked for."""
    if out is not None or not figures:
        target = out or RunFolder(path).report
        write_report(path, target)
        print(f"written to {target}")
    if figures:
        save_front_plots(path, figures)


def save_front_plots(path: Path, files: Sequence[Path]) -> None:
    """Draw the front into each of the files."""
    run, _ = open_run(path)
    state = summarize_run(run)
    if state.front is None:
        raise UserError(
            f"a figure needs a finished trial, got none in {path}; "
            f"go on with paretoprune search --resume {path}"
        )
    for file in files:
        front_drawing(state.front, run_title(run), state.trials).save(file)
        print(f"written to {file}")


def write_report(path: Path, out: Path) -> None:
    """Write the page of a run."""
    content = render_page(build_report(path)).encode()
    try:
        write_bytes_atomic(out, content)
    except OSError as error:
        raise UserError(
            f"the page's file must be writable, got {out} ({error.strerror}); name another "
            "with --out"
        ) from None


def build_report(path: Path, before: Insights | None = None) -> Report:
    """All that the page shows of the run in `path`, finished or not.

    What mattered is taken from `before` until a tenth more trials have finished.
    """
    run, config = open_run(path)
    state, space = summarize_run(run), read_space_file(run)
    layout = layout_from_json(space, str(run.space)) if space else Layout()
    settings = {k: v for k, v in config["settings"].items() if v not in (None, [], "")}
    front = state.front
    return Report(
        title=run_title(run),
        front=front,
        requested_text=format_target(front.requested) if front else "",
        control_comparison=compare_with_controls(front) if front else "",
        trials=reported_trials(state, run, layout),
        controls=reported_controls(front, run, layout),
        failures=dict(state.failures),
        planned=int(settings.get("trials") or 0) + len(CONTROL_POLICIES) + state.counts.finals,
        counts=state.counts,
        layout=layout,
        measurements=measurement_plots(run.measurements, layout),
        insights=before if before and are_insights_current(before, state) else run_insights(state),
        settings={**settings, **config.get("machine", {})},
        versions=recorded_versions(config, space),
    )


def are_insights_current(insights: Insights, state: RunSummary) -> bool:
    """Whether there are few trials that the insights do not know of."""
    return insights.trials <= len(state.trials) < 1.1 * insights.trials


def run_title(run: RunFolder) -> str:
    """A run is called as its folder is."""
    return run.root.resolve().name


def reported_trials(
    state: RunSummary, run: RunFolder, layout: Layout
) -> tuple[ReportedTrial, ...]:
    """The sampled trials and what became of them; those with weights can be picked."""
    front = state.front
    answer = [front.at_target.path] if front and front.at_target else []
    pickable = {*answer, *(point.path for point in (front.points if front else ()))}
    return tuple(
        build_reported_trial(e, run, layout, pick_command(run, e) if e.path in pickable else None)
        for e in (*state.trials, *state.finals)
    )


def reported_controls(
    front: Front | None, run: RunFolder, layout: Layout
) -> tuple[ReportedTrial, ...]:
    """The controls by name."""
    controls = front.controls if front else {}
    return tuple(
        build_reported_trial(control, run, layout) for _, control in sorted(controls.items())
    )


def build_reported_trial(
    evaluation: Evaluation, run: RunFolder, layout: Layout, pick: str | None = None
) -> ReportedTrial:
    """One evaluation with its name, its policy in words, and what it keeps."""
    kept, course = kept_atoms_by_group(run, evaluation, layout), read_gate_history(run, evaluation)
    return ReportedTrial(
        trial_title(Path(evaluation.path).name),
        evaluation,
        describe_policy(evaluation.policy),
        kept,
        pick,
        course,
    )


def pick_command(run: RunFolder, point: Evaluation) -> str:
    """What writes the network of this point to a folder."""
    folder = shlex.quote(str(run.root))
    return f"paretoprune pick {folder} --trial {point.trial} --out picked-{point.trial}"


def kept_atoms_by_group(
    run: RunFolder, point: Evaluation, layout: Layout
) -> tuple[int, ...] | None:
    """The atoms that a trial's recipe keeps of each group, where both are known."""
    if not layout.groups:
        return None
    try:
        recipe = read_recipe(run.trial_folder(Path(point.path).name) / "recipe.json")
    except UserError:
        return None
    return layout.kept(recipe.mask) if recipe.atoms == layout.atoms else None


def read_gate_history(run: RunFolder, point: Evaluation) -> GateHistory | None:
    """How a trial's gates met their target; runs of older versions do not say."""
    if point.policy.schedule != "holistic":
        return None
    try:
        return gate_history_from_json(
            read_json(run.trial_folder(Path(point.path).name) / GATE_HISTORY_FILE)
        )
    except (FileNotFoundError, UserError):
        return None


def read_space_file(run: RunFolder) -> dict[str, Any]:
    """space.json; runs of older versions have none."""
    try:
        values = read_json(run.space)
    except FileNotFoundError:
        return {}
    return values if isinstance(values, dict) else {"schema": values}


def recorded_versions(config: dict[str, Any], space: dict[str, Any]) -> dict[str, str]:
    """What made the run, as far as it says."""
    known = space.get("versions")
    rest = known if isinstance(known, dict) else {}
    return {str(k): str(v) for k, v in {"paretoprune": config.get("version"), **rest}.items()}
