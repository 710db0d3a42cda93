"""The front as a table, and the lines under it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...analysis.report.page import format_latency
from ...analysis.report.report_data import Insights
from ...spaces.cost.target import Target
from ...spaces.policy.policy import Policy
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import DenseMetrics, Front, dominates
from .control_comparison import compare_with_controls


def show_front(front: Front, run: Path, console: Console, *, failed: int = 0) -> None:
    """Print the table, the answer at the target beside what was asked, and how to pick."""
    console.print(front_table(front))
    print_line(describe_target_result(front, mark=" *"), console)
    for name, control in sorted(front.controls.items()):
        print_line(f"  control {name}: {format_metrics(control)}", console)
    if told := compare_with_controls(front):
        print_line(f"  {told}", console)
    if failed:
        print_line(f"{failed} trials failed; trials/*/error.txt says why", console)
    print_line(f"run folder: {run}", console)
    print_line(
        f"to pick: paretoprune pick {run} {pick_options(front.requested)} --out picked", console
    )


def print_line(line: str, console: Console) -> None:
    """A line that stays one, whatever the width."""
    console.print(Text(line), soft_wrap=True)


def front_table(front: Front) -> Table:
    """One row a point; the dense network first. FLOPs are MACs, as the papers count them."""
    table = Table(
        title="Front (accuracy: validation; FLOPs: MACs of convolutions and linear layers)"
    )
    timed = "latency_ms" in front.objectives
    latency = ["ms"] if timed else []
    for heading in ("accuracy", "test", "FLOPs %", "params %", *latency, "trial"):
        table.add_column(heading, justify="right")
    table.add_column("from", overflow="fold")
    table.add_column("policy", overflow="fold")
    table.add_row(*metrics_cells(front.dense, timed), "", "", "dense")
    alike = common_recipe_phrases(front)
    if alike:
        table.caption = f"all of them: {', '.join(alike)}"
    for point in reversed(front.points):
        star = " *" if front.picked and point.path == front.picked.path else ""
        table.add_row(
            *metrics_cells(point, timed),
            f"{point.trial}{star}",
            point.origin or "",
            describe_policy(point.policy, without=alike),
        )
    return table


def metrics_cells(one: Evaluation | DenseMetrics, timed: bool) -> list[str]:
    """What is measured of a point or the dense network."""
    sizes = (
        (1.0, 1.0) if isinstance(one, DenseMetrics) else (one.flops_fraction, one.params_fraction)
    )
    shares = [f"{100 * size:.1f}" for size in sizes]
    latency = [format_latency(one)] if timed else []
    return [f"{one.accuracy:.4f}", format_optional(one.test_accuracy), *shares, *latency]


def common_recipe_phrases(front: Front) -> list[str]:
    """The words on the fine-tune that all of several points have."""
    first, *more = [describe_recipe(point.policy) for point in front.points] or [[]]
    return [word for word in first if more and all(word in other for other in more)]


def describe_policy(policy: Policy, without: Sequence[str] = ()) -> str:
    """A policy in a few words; `without` those on its fine-tune."""
    parts = [policy.score]
    if policy.combine != "sum":
        parts.append(policy.combine)
    if policy.allocation != "global-threshold":
        parts.append(policy.allocation)
    if policy.normalisation != "none":
        parts.append(f"/{policy.normalisation}")
    if policy.price_power:
        present = " as it shrinks" if policy.price_at == "present" else ""
        parts.append(f"/price^{policy.price_power:.2f}{present}")
    if policy.schedule == "gradual":
        parts.append(f"gradual in {policy.steps} steps")
    if policy.schedule == "holistic":
        parts.append(f"gates for {policy.gate_share:.0%} of the epochs")
    return " ".join([*parts, *(word for word in describe_recipe(policy) if word not in without)])


def describe_recipe(policy: Policy) -> list[str]:
    """What a policy does after the cut."""
    parts = ["refitted"] if policy.refit else []
    parts.append(f"lr {policy.learning_rate:.3f}")
    if policy.distill:
        parts.append(f"distill {policy.distill:.2f}")
    return parts


def show_insights(insights: Insights, console: Console) -> None:
    """What mattered: the fields that explain more than chance does, what the front shares."""
    print_line("what mattered, between trials of like size:", console)
    clear = [one for one in insights.importances if one.is_significant]
    for one in clear:
        name = one.field.replace("_", " ")
        print_line(
            f"  {name}: {one.share:.0%} of the differences (chance: {one.noise_share:.0%})",
            console,
        )
    if insights.importances and not clear:
        print_line("  no part of the policy explains more than chance does", console)
    for line in (*insights.sentences, *filter(None, [insights.note])):
        print_line(f"  {line}", console)
    if insights.screening:
        print_line(f"  screening: {insights.screening}", console)
    if insights.stopped:
        rest = f"the {insights.stopped} that were stopped on their way are"
        if insights.stopped == 1:
            rest = "the one that was stopped on its way is"
        print_line(
            f"  this is of the {insights.trials} finished trials; {rest} not among them", console
        )


def format_metrics(point: Evaluation) -> str:
    """The figures of one point in one line."""
    test = f", test {point.test_accuracy:.4f}" if point.test_accuracy is not None else ""
    return (
        f"accuracy {point.accuracy:.4f}{test}, FLOPs {point.flops_fraction:.2%}, "
        f"params {point.params_fraction:.2%}"
    )


def describe_target_result(front: Front, mark: str = "") -> str:
    """Requested next to achieved, and what `pick` gives where that is another point.

    `mark` is what stands in a table beside the point to pick.
    """
    asked = format_target(front.requested)
    if front.at_target is None:
        return f"at the target ({asked}): no trial yet"
    own, best = front.at_target, front.picked
    if best is None or best.path == own.path:
        return f"at the target ({asked}): trial {own.trial}{mark}, {format_metrics(own)}"
    better = ", which dominates it" if dominates(best, own, front.objectives) else ""
    return (
        f"at the target ({asked}): trial {own.trial}, {format_metrics(own)}; "
        f"pick gives trial {best.trial}{mark}{better}: {format_metrics(best)}"
    )


def format_target(target: Target) -> str:
    """What was asked for, in words."""
    parts = []
    for name, value in (("FLOPs", target.flops), ("params", target.params)):
        if value is not None:
            size = f"{value:,}" if isinstance(value, int) else f"{100 * value:g} %"
            parts.append(f"{name} <= {size}")
    return ", ".join(parts)


def pick_options(target: Target) -> str:
    """The options of `pick` that ask for the same."""
    parts = []
    for name, value in (("--max-flops", target.flops), ("--max-params", target.params)):
        if value is not None:
            parts.append(
                f"{name} {value / 1e6:g}M" if isinstance(value, int) else f"{name} {value:g}"
            )
    return " ".join(parts)


def format_optional(value: float | None) -> str:
    """A figure, or nothing."""
    return "" if value is None else f"{value:.4f}"


def show_pruned(point: Evaluation, dense: DenseMetrics, out: Path, console: Console) -> None:
    """What one policy made of the dense network, requested next to achieved."""
    table = Table(title="Accuracy: validation; FLOPs: MACs of convolutions and linear layers")
    table.add_column("")
    for heading in ("accuracy", "test", "FLOPs", "params", "ms"):
        table.add_column(heading, justify="right")
    for name, one in (("dense", dense), ("pruned", point)):
        table.add_row(
            name,
            f"{one.accuracy:.4f}",
            format_optional(one.test_accuracy),
            f"{one.macs:,}",
            f"{one.params:,}",
            format_latency(one),
        )
    console.print(table)
    asked = format_target(point.target)
    print_line(f"asked: {asked}; got {format_metrics(point)}", console)
    print_line(f"written to {out}; its README.md has the lines that load it", console)


def make_console() -> Console:
    """Stdout; tables have a fixed width where it is not a terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)
