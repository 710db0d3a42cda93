"""The front as a table, and the lines under it."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..analysis.report.record import Insights
from ..spaces.evaluation import Evaluation
from ..spaces.front import Dense, Front
from ..spaces.policy import Policy
from ..spaces.target import Target


def show_front(front: Front, run: Path, console: Console, *, failed: int = 0) -> None:
    """Print the table, the answer at the target beside what was asked, and how to pick."""
    console.print(front_table(front))
    console.print(answer(front, mark=" *"))
    for name, control in sorted(front.controls.items()):
        console.print(f"  control {name}: {figures(control)}")
    if failed:
        console.print(f"{failed} trials failed; trials/*/error.txt says why")
    console.print(f"run folder: {run}")
    console.print(f"to pick: paretoprune pick {run} {pick_options(front.requested)} --out picked")


def front_table(front: Front) -> Table:
    """One row a point; the dense network first. FLOPs are MACs, as the papers count them."""
    table = Table(
        title="Front (accuracy: validation; FLOPs: MACs of convolutions and linear layers)"
    )
    for heading in ("accuracy", "test", "FLOPs %", "params %", "trial"):
        table.add_column(heading, justify="right")
    table.add_column("policy", overflow="fold")
    dense = front.dense
    table.add_row(
        f"{dense.accuracy:.4f}", maybe(dense.test_accuracy), "100.0", "100.0", "", "dense"
    )
    for point in reversed(front.points):
        star = " *" if front.at_target and point.trial == front.at_target.trial else ""
        table.add_row(
            f"{point.accuracy:.4f}",
            maybe(point.test_accuracy),
            f"{100 * point.flops_fraction:.1f}",
            f"{100 * point.params_fraction:.1f}",
            f"{point.trial}{star}",
            words(point.policy),
        )
    return table


def words(policy: Policy) -> str:
    """A policy in a few words."""
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
    if policy.refit:
        parts.append("refitted")
    parts.append(f"lr {policy.learning_rate:.3f}")
    if policy.distill:
        parts.append(f"distill {policy.distill:.2f}")
    return " ".join(parts)


def show_insights(insights: Insights, console: Console) -> None:
    """What mattered: the fields that explain more than chance does, what the front shares."""
    console.print("what mattered, between trials of like size:")
    clear = [one for one in insights.importances if one.clear]
    for one in clear:
        name = one.field.replace("_", " ")
        console.print(f"  {name}: {one.share:.0%} of the differences (chance: {one.chance:.0%})")
    if insights.importances and not clear:
        console.print("  no part of the policy explains more than chance does")
    for line in (*insights.sentences, *filter(None, [insights.note])):
        console.print(f"  {line}")
    if insights.screening:
        console.print(f"  screening: {insights.screening}")
    if insights.stopped:
        console.print(
            f"  this is of the {insights.trials} finished trials; "
            f"the {insights.stopped} stopped on their way are not among them"
        )


def figures(point: Evaluation) -> str:
    """The figures of one point in one line."""
    test = f", test {point.test_accuracy:.4f}" if point.test_accuracy is not None else ""
    return (
        f"accuracy {point.accuracy:.4f}{test}, FLOPs {point.flops_fraction:.2%}, "
        f"params {point.params_fraction:.2%}"
    )


def answer(front: Front, mark: str = "") -> str:
    """Requested next to achieved; `mark` is what stands beside that point in a table."""
    asked = requested(front.requested)
    if front.at_target is None:
        return f"at the target ({asked}): no trial yet"
    line = (
        f"at the target ({asked}): trial {front.at_target.trial}{mark}, {figures(front.at_target)}"
    )
    if front.dominator is not None:
        line += f"; dominated by trial {front.dominator}"
    return line


def requested(target: Target) -> str:
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


def maybe(value: float | None) -> str:
    """A figure, or nothing."""
    return "" if value is None else f"{value:.4f}"


def show_pruned(point: Evaluation, dense: Dense, out: Path, console: Console) -> None:
    """What one policy made of the dense network, requested next to achieved."""
    table = Table(title="Accuracy: validation; FLOPs: MACs of convolutions and linear layers")
    table.add_column("")
    for heading in ("accuracy", "test", "FLOPs", "params", "ms"):
        table.add_column(heading, justify="right")
    for name, one in (("dense", dense), ("pruned", point)):
        milliseconds = "" if one.latency_ms is None else f"{one.latency_ms:.2f}"
        table.add_row(
            name,
            f"{one.accuracy:.4f}",
            maybe(one.test_accuracy),
            f"{one.macs:,}",
            f"{one.params:,}",
            milliseconds,
        )
    console.print(table)
    asked = requested(point.target)
    console.print(f"asked: {asked}; got {figures(point)}")
    console.print(f"written to {out}; its README.md has the lines that load it", soft_wrap=True)


def plain_console() -> Console:
    """Stdout; as wide as it needs where it is not a terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)
