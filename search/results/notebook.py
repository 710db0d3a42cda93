"""A search's result in a notebook: a table with a figure, and a data frame."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...analysis.report import Drawing, front_drawing
from ...analysis.report.page import format_latency, metrics_row, table_row
from ...spaces.errors import UserError
from ...spaces.records.evaluation import Evaluation
from ...spaces.records.pareto_front import Front
from ..storage.run_folder import RunFolder
from ..storage.trial_spec import trial_title as name_of
from .formatting import describe_policy, describe_target_result, format_optional
from .run_summary import summarize_run

if TYPE_CHECKING:
    import pandas

NOTEBOOK_COLUMNS = ("", "accuracy", "test", "FLOPs", "params", "latency ms", "policy")


def front_figure(front: Front, folder: Path) -> Drawing:
    """The front as a figure; the run's other trials lie faintly behind."""
    return front_drawing(front, folder.resolve().name, summarize_run(RunFolder(folder)).trials)


def front_html(front: Front, folder: Path) -> str:
    """The answer, the figure and the front's points, as a notebook shows them."""
    head = "".join(f"<th>{name}</th>" for name in NOTEBOOK_COLUMNS)
    dense = front.dense
    body = table_row(
        "dense", f"{dense.accuracy:.4f}", format_optional(dense.test_accuracy), "100.0%", "100.0%",
        format_latency(dense), "",
    )  # fmt: skip
    body += "".join(
        metrics_row(name, point, format_latency(point), describe_policy(point.policy))
        for name, point in named_evaluations(front)
    )
    return (
        f"<p>{html.escape(describe_target_result(front))}; dense accuracy {dense.accuracy:.4f}</p>"
        f"{front_figure(front, folder)._repr_svg_()}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def named_evaluations(front: Front) -> list[tuple[str, Evaluation]]:
    """The front's points, the answer at the target and the controls, each by name."""
    points = [*front.points]
    if front.at_target and front.at_target.path not in {p.path for p in front.points}:
        points.append(front.at_target)
    points += [control for _, control in sorted(front.controls.items())]
    return [(name_of(Path(point.path).name), point) for point in points]


def front_dataframe(front: Front) -> pandas.DataFrame:
    """One row a network, dense first; the policy's fields are columns of their own."""
    try:
        import pandas
    except ImportError:
        raise UserError(
            "to_pandas needs pandas, got none installed; run pip install pandas"
        ) from None
    on_front = {point.path for point in front.points}
    answer_path = front.at_target.path if front.at_target else None
    dense = {field: getattr(front.dense, field) for field in type(front.dense).__slots__}
    rows: list[dict[str, Any]] = [
        {"name": "dense", **dense, "flops_fraction": 1.0, "params_fraction": 1.0}
    ]
    for name, point in named_evaluations(front):
        values = point.to_json()
        policy = {f"policy.{field}": value for field, value in values.pop("policy").items()}
        del values["target"]
        flags = {"front": point.path in on_front, "at_target": point.path == answer_path}
        rows.append({"name": name, **flags, **values, **policy})
    frame = pandas.DataFrame(rows)
    return frame.assign(
        front=frame["front"].eq(True), at_target=frame["at_target"].eq(True)
    ).set_index("name")
