"""The report of a run, gathered from its folder alone: no network is built, no user code run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...analysis.report import Insights, Report, Shown, front_drawing, page
from ...analysis.report.measurements import evidence_plots
from ...spaces.errors import UserError
from ...spaces.graph.layout import Layout, layout_from_json
from ...spaces.io.atomic_write import write_bytes
from ...spaces.io.bounded_read import read_json
from ...spaces.policy.policy import CONTROLS
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.gate_history import COURSE, Course, course_from_json
from ...spaces.records.pareto_front import Front
from ...spaces.records.recipe import read_recipe
from ..storage.run_folder import RunFolder, open_run
from ..storage.trial_spec import named
from .control_comparison import verdict
from .formatting import requested, words
from .run_summary import RunState, insights_of, state_of


def report_command(path: Path, out: Path | None, figures: Sequence[Path]) -> None:
    """`paretoprune report`: the page, unless only figures are asked for."""
    if out is not None or not figures:
        target = out or RunFolder(path).report
        write_report(path, target)
        print(f"written to {target}")
    if figures:
        save_figures(path, figures)


def save_figures(path: Path, files: Sequence[Path]) -> None:
    """Draw the front into each of the files."""
    run, _ = open_run(path)
    state = state_of(run)
    if state.front is None:
        raise UserError(
            f"a figure needs a finished trial, got none in {path}; "
            f"go on with paretoprune search --resume {path}"
        )
    for file in files:
        front_drawing(state.front, title_of(run), state.trials).save(file)
        print(f"written to {file}")


def write_report(path: Path, out: Path) -> None:
    """Write the page of a run."""
    content = page(report_of(path)).encode()
    try:
        write_bytes(out, content)
    except OSError as error:
        raise UserError(
            f"the page's file must be writable, got {out} ({error.strerror}); name another "
            "with --out"
        ) from None


def report_of(path: Path, before: Insights | None = None) -> Report:
    """All that the page shows of the run in `path`, finished or not.

    What mattered is taken from `before` until a tenth more trials have finished.
    """
    run, config = open_run(path)
    state, space = state_of(run), read_space(run)
    layout = layout_from_json(space, str(run.space)) if space else Layout()
    settings = {k: v for k, v in config["settings"].items() if v not in (None, [], "")}
    front = state.front
    return Report(
        title=title_of(run),
        front=front,
        asked=requested(front.requested) if front else "",
        verdict=verdict(front) if front else "",
        trials=shown_trials(state, run, layout),
        controls=shown_controls(front, run, layout),
        failures=dict(state.failures),
        planned=int(settings.get("trials") or 0) + len(CONTROLS) + state.counts.finals,
        counts=state.counts,
        layout=layout,
        evidence=evidence_plots(run.evidence, layout),
        insights=before if before and still_holds(before, state) else insights_of(state),
        settings={**settings, **config.get("machine", {})},
        versions=versions_of(config, space),
    )


def still_holds(insights: Insights, state: RunState) -> bool:
    """Whether there are few trials that the insights do not know of."""
    return insights.trials <= len(state.trials) < 1.1 * insights.trials


def title_of(run: RunFolder) -> str:
    """A run is called as its folder is."""
    return run.root.resolve().name


def shown_trials(state: RunState, run: RunFolder, layout: Layout) -> tuple[Shown, ...]:
    """The sampled trials and what became of them; those with weights can be picked."""
    front = state.front
    answer = [front.at_target.path] if front and front.at_target else []
    pickable = {*answer, *(point.path for point in (front.points if front else ()))}
    return tuple(
        shown(e, run, layout, pick_command(run, e) if e.path in pickable else None)
        for e in (*state.trials, *state.finals)
    )


def shown_controls(front: Front | None, run: RunFolder, layout: Layout) -> tuple[Shown, ...]:
    """The controls by name."""
    controls = front.controls if front else {}
    return tuple(shown(control, run, layout) for _, control in sorted(controls.items()))


def shown(e: Evaluation, run: RunFolder, layout: Layout, pick: str | None = None) -> Shown:
    """One evaluation with its name, its policy in words, and what it keeps."""
    kept, course = kept_in(run, e, layout), course_in(run, e)
    return Shown(named(Path(e.path).name), e, words(e.policy), kept, pick, course)


def pick_command(run: RunFolder, point: Evaluation) -> str:
    """What writes the network of this point to a folder."""
    folder = shlex.quote(str(run.root))
    return f"paretoprune pick {folder} --trial {point.trial} --out picked-{point.trial}"


def kept_in(run: RunFolder, point: Evaluation, layout: Layout) -> tuple[int, ...] | None:
    """The atoms that a trial's recipe keeps of each group, where both are known."""
    if not layout.groups:
        return None
    try:
        recipe = read_recipe(run.trial(Path(point.path).name) / "recipe.json")
    except UserError:
        return None
    return layout.kept(recipe.mask) if recipe.atoms == layout.atoms else None


def course_in(run: RunFolder, point: Evaluation) -> Course | None:
    """How a trial's gates met their target; runs of older versions do not say."""
    if point.policy.schedule != "holistic":
        return None
    try:
        return course_from_json(read_json(run.trial(Path(point.path).name) / COURSE))
    except (FileNotFoundError, UserError):
        return None


def read_space(run: RunFolder) -> dict[str, Any]:
    """space.json; runs of older versions have none."""
    try:
        values = read_json(run.space)
    except FileNotFoundError:
        return {}
    return values if isinstance(values, dict) else {"schema": values}


def versions_of(config: dict[str, Any], space: dict[str, Any]) -> dict[str, str]:
    """What made the run, as far as it says."""
    known = space.get("versions")
    rest = known if isinstance(known, dict) else {}
    return {str(k): str(v) for k, v in {"paretoprune": config.get("version"), **rest}.items()}
