"""pick: the best within the limits, why, what the neighbours cost; a folder that stands alone."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_folders import make_run, pick_into, trained_digits
from run_folders import write_run
from torch import nn

import paretoprune as pp
from paretoprune.analysis.report import Insights
from paretoprune.search.api import Result
from paretoprune.search.cli.app import main
from paretoprune.search.results.control_comparison import compare_with_controls
from paretoprune.search.results.formatting import (
    describe_target_result,
    make_console,
    show_front,
    show_insights,
)
from paretoprune.search.results.selection import (
    SelectionCriteria,
    describe_neighbors,
    explain_selection,
    select_point,
)
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.policy.policy import Policy
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.spaces.records.pareto_front import (
    DenseMetrics,
    Front,
    best_at_target,
    front_from_json,
    non_dominated,
)
from paretoprune.spaces.records.recipe import SCHEMA, read_recipe, recipe_from_json

DENSE = DenseMetrics(0.95, 1000, 100, 0.94, 8.0)


def point(trial, accuracy, macs, params, latency_ms=None):
    return Evaluation(
        trial, accuracy, 1 - accuracy, macs, params, macs / 1000, params / 100, 1.0, 1.0,
        Policy("l2"), Target(0.5), f"trials/{trial}", latency_ms=latency_ms,
    )  # fmt: skip


def front_of(*points):
    return Front(0, Target(0.5), DENSE, non_dominated(points), None, {})


FRONT = front_of(
    point(0, 0.6, 200, 30, 1.0), point(1, 0.8, 400, 45, 2.5), point(2, 0.9, 700, 60, 2.0)
)


@pytest.mark.parametrize(
    ("wish", "trial"),
    [(SelectionCriteria(max_flops=0.5), 1), (SelectionCriteria(max_flops=250), 0),
     (SelectionCriteria(max_params=0.5), 1), (SelectionCriteria(), 2),
     (SelectionCriteria(max_latency_ms=2.2), 2),
     (SelectionCriteria(max_latency_ms=2.2, max_flops=0.5), 0),
     (SelectionCriteria(min_accuracy=0.7), 1),
     (SelectionCriteria(min_accuracy=0.7, max_latency_ms=2.2), 2),
     (SelectionCriteria(trial=0), 0), (SelectionCriteria(knee=True), 1)],
)  # fmt: skip
def test_each_wish_gets_the_point_that_its_words_mean(wish, trial):
    assert select_point(FRONT, wish).trial == trial


def asked_half(*points, controls=None):
    """A front of a search for half of the FLOPs, its answer the last of the points."""
    return Front(0, Target(0.5), DENSE, non_dominated(points), points[-1], controls or {})


def test_where_another_point_dominates_the_answer_it_is_named_starred_and_picked():
    front = asked_half(point(3, 0.85, 350, 40), point(2, 0.9, 700, 60), point(0, 0.8, 490, 50))
    assert describe_target_result(front, mark=" *") == (
        "at the target (FLOPs <= 50 %): trial 0, accuracy 0.8000, FLOPs 49.00%, params 50.00%; "
        "pick gives trial 3 *, which dominates it: accuracy 0.8500, FLOPs 35.00%, params 40.00%"
    )
    assert select_point(front, SelectionCriteria(max_flops=0.5)).trial == 3
    assert "3 *" in printed(front)
    values = front.to_json()
    assert (values["at_target"]["dominated_by"], values["picked"]["trial"]) == (3, 3)


def test_of_equally_accurate_points_pick_gives_the_one_of_the_front():
    dominated = replace(point(0, 0.85, 490, 50), loss=0.01)
    front = asked_half(point(3, 0.85, 350, 40), dominated)
    assert select_point(front, SelectionCriteria(max_flops=0.5)).trial == front.picked.trial == 3


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1000), st.integers(1, 100)), min_size=1))
def test_the_starred_point_is_what_pick_gives_for_the_requested_sizes(rows):
    points = [point(n, *row) for n, row in enumerate(rows)]
    target = Target(0.5, 0.6)
    best = best_at_target(points, target, (DENSE.macs, DENSE.params))
    front = Front(0, target, DENSE, non_dominated(points), best, {})
    wish = SelectionCriteria(max_flops=0.5, max_params=0.6)
    if front.picked is None:
        with pytest.raises(UserError):
            select_point(front, wish)
    else:
        assert select_point(front, wish) == front.picked


def test_the_answer_is_judged_beside_each_control_on_both_splits():
    best = replace(point(1, 0.908, 490, 50), test_accuracy=0.9)
    uniform = replace(point(None, 0.9, 500, 50), test_accuracy=0.889)
    random = replace(point(None, 0.905, 500, 50), test_accuracy=0.908)
    front = asked_half(best, controls={"random": random, "uniform": uniform})
    told = (
        "trial 1: 0.8 points above the uniform cut on validation, 1.1 on test; "
        "no better than the random cut at this size: +0.3 points on validation, -0.8 on test"
    )
    assert compare_with_controls(front) == told
    assert told in printed(front)
    above = front.to_json()["picked"]["above"]["random"]
    assert above == {"accuracy": pytest.approx(0.003), "test_accuracy": pytest.approx(-0.008)}
    untested = asked_half(replace(best, test_accuracy=None), controls={"uniform": uniform})
    assert (
        compare_with_controls(untested)
        == "trial 1: 0.8 points above the uniform cut on validation"
    )
    level = asked_half(best, controls={"uniform": replace(uniform, accuracy=0.9079)})
    assert "no better than the uniform cut at this size: +0.0 points" in compare_with_controls(
        level
    )
    assert compare_with_controls(asked_half(best)) == compare_with_controls(front_of()) == ""


def printed(front, folder="runs/x"):
    """What a search prints of its front where stdout is no terminal."""
    console = make_console()
    with console.capture() as captured:
        show_front(front, Path(folder), console)
    return captured.get()


def test_every_line_under_the_table_is_one_line_however_long(tmp_path):
    front = asked_half(
        point(3, 0.85, 350, 40), point(0, 0.8, 490, 50),
        controls={"uniform": point(None, 0.7, 500, 50)},
    )  # fmt: skip
    deep = tmp_path / ("[bold]" + "deep" * 30)
    lines = printed(front, deep).splitlines()
    assert f"run folder: {deep}" in lines
    assert f"to pick: paretoprune pick {deep} --max-flops 0.5 --out picked" in lines
    assert describe_target_result(front, mark=" *") in lines


def test_a_row_says_where_it_came_from_and_what_all_have_stands_once():
    one, two = replace(point(1, 0.8, 400, 45), origin="screened"), point(2, 0.9, 700, 60)
    shown = printed(asked_half(two, one))
    assert "screened" in shown
    assert shown.count("lr 0.020") == 1
    assert "all of them: lr 0.020" in shown
    assert "lr 0.020" in printed(asked_half(one))


def test_of_one_stopped_trial_one_is_spoken():
    console = make_console()
    with console.capture() as captured:
        show_insights(Insights(9, stopped=1), console)
        show_insights(Insights(9, stopped=2), console)
    said = captured.get()
    assert "; the one that was stopped on its way is not among them" in said
    assert "; the 2 that were stopped on their way are not among them" in said


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": 1}', "\0"])
def test_a_damaged_front_json_hides_nothing_that_the_journal_holds(content, tmp_path, capsys):
    write_run(tmp_path / "run", trials=4)
    whole = pp.read_run(tmp_path / "run").front
    (tmp_path / "run/front.json").write_text(content)
    assert pp.read_run(tmp_path / "run").front == whole
    assert whole.points[0].test_accuracy is not None
    assert capsys.readouterr().err == ""


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1000), st.integers(1, 100)), min_size=1),
    st.floats(0.01, 1), st.floats(0.01, 1),
)  # fmt: skip
def test_no_point_within_the_limits_is_more_accurate_than_the_picked_one(rows, flops, params):
    front = front_of(*(point(n, *row) for n, row in enumerate(rows)))
    fitting = [p for p in front.points if p.macs <= flops * 1000 and p.params <= params * 100]
    try:
        found = select_point(front, SelectionCriteria(max_flops=flops, max_params=params))
    except UserError:
        assert not fitting
        return
    assert found in fitting
    assert found.accuracy == max(p.accuracy for p in fitting)


def test_where_nothing_fits_the_nearest_points_are_named_first():
    with pytest.raises(UserError) as error:
        select_point(FRONT, SelectionCriteria(max_flops=0.1, min_accuracy=0.5))
    message = str(error.value)
    assert "FLOPs <= 10 %, accuracy >= 0.5" in message
    assert [int(n) for n in re.findall(r"trial (\d)", message)] == [0, 1, 2]
    assert "\n" not in message


def test_an_accuracy_out_of_reach_is_no_matter_of_size():
    with pytest.raises(UserError, match=r"fine-tune longer: search with more epochs"):
        select_point(FRONT, SelectionCriteria(min_accuracy=0.99))


def test_a_named_trial_beyond_the_limits_is_told_with_its_figures_and_who_keeps_them():
    with pytest.raises(UserError) as error:
        select_point(FRONT, SelectionCriteria(trial=2, max_flops=0.5))
    message = str(error.value)
    assert message.startswith("trial=2 must keep every other limit (FLOPs <= 50 %), got acc")
    assert "FLOPs 70.00%" in message
    assert message.endswith("leave it out: trial 1 does")


@pytest.mark.parametrize(
    "wish",
    [
        SelectionCriteria(trial=1, knee=True),
        SelectionCriteria(trial="1"),
        SelectionCriteria(min_accuracy="0.9"),
        SelectionCriteria(trial=True),
    ],
)
def test_wishes_that_contradict_or_are_no_numbers_are_refused(wish):
    with pytest.raises(UserError, match=r"must be|each name a point"):
        select_point(FRONT, wish)


@pytest.mark.parametrize(
    "wish",
    [
        SelectionCriteria(min_accuracy=90.0),
        SelectionCriteria(max_latency_ms=0.0),
        SelectionCriteria(max_latency_ms=float("nan")),
    ],
)
def test_a_limit_that_nothing_can_keep_is_refused(wish):
    with pytest.raises(UserError, match="must be"):
        select_point(FRONT, wish)


def test_a_latency_that_was_not_measured_cannot_be_asked_for():
    front = replace(FRONT, points=tuple(replace(p, latency_ms=None) for p in FRONT.points))
    with pytest.raises(UserError, match="needs measured latencies"):
        select_point(front, SelectionCriteria(max_latency_ms=1.0))


def test_it_is_said_why_and_what_the_neighbours_would_give_and_take():
    wish = SelectionCriteria(max_flops=0.5)
    assert explain_selection(FRONT, wish, select_point(FRONT, wish)) == (
        "why: the best validation accuracy of the 2 of 3 points within FLOPs <= 50 %"
    )
    smaller, larger = describe_neighbors(FRONT, FRONT.points[1])
    assert "trial 0, accuracy -20.00, FLOPs -20.00, params -15.00 percentage points" in smaller
    assert "trial 2, accuracy +10.00, FLOPs +30.00, params +15.00 percentage points" in larger
    assert (smaller[-11:], larger[-11:]) == (", -1.500 ms", ", -0.500 ms")
    assert len(describe_neighbors(FRONT, FRONT.points[2])) == 1
    assert explain_selection(FRONT, SelectionCriteria(), FRONT.points[2]).endswith(
        "of all 3 points"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pick") / "run"
    return folder, make_run(folder, *trained_digits())


def pick_command(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        main(["pick", *map(str, words)])
    return exit_.value.code, capsys.readouterr()


def test_the_command_writes_a_folder_that_stands_alone(finished, tmp_path, capsys, monkeypatch):
    run, front = finished
    monkeypatch.chdir(tmp_path)
    code, output = pick_command(capsys, run, "--max-latency-ms", 0.25)
    assert code == 0, output.err
    assert "why: the best validation accuracy of the 2 of 3 points" in output.out
    assert "one larger: trial 2" in output.out
    moved = shutil.move("picked", tmp_path / "moved")
    recipe = read_recipe(tmp_path / "moved/recipe.json")
    trial = max(front.points[:2], key=lambda p: p.accuracy)
    assert recipe.figures.accuracy == trial.accuracy
    assert recipe.figures.macs == trial.macs
    assert recipe.dense == front.dense
    assert recipe.versions == {"paretoprune": pp.__version__, "torch": torch.__version__}
    small, images = pp.load(moved), torch.rand(3, 1, 8, 8)
    convolutions = {n: m.out_channels for n, m in small.named_modules()
                    if isinstance(m, nn.Conv2d)}  # fmt: skip
    assert {name: recipe.widths[name] for name in convolutions} == convolutions
    assert torch.equal(small(images), pp.load(run / trial.path)(images))
    assert str(tmp_path) not in (tmp_path / "moved/recipe.json").read_text()


def test_the_lines_of_the_card_load_the_network(finished, tmp_path, monkeypatch):
    pick_into(tmp_path / "picked", *finished)
    text = (tmp_path / "picked/README.md").read_text()
    assert f"{finished[1].points[1].accuracy:.4f}" in text
    monkeypatch.chdir(tmp_path)
    names = {"images": torch.rand(2, 1, 8, 8)}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), names)
    assert names["scores"].shape == (2, 10)


def test_nothing_that_fits_is_one_line_and_exit_2(finished, tmp_path, capsys):
    code, output = pick_command(capsys, finished[0], "--max-flops", 0.01, "--out", tmp_path / "x")
    assert (code, output.err.count("\n")) == (2, 1)
    assert "the nearest: trial 0" in output.err
    assert not (tmp_path / "x").exists()


def test_a_busy_folder_is_left_as_it_is(finished, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    code, output = pick_command(capsys, finished[0], "--out", tmp_path)
    assert (code, output.err.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_recipe_of_schema_1_loads_as_one_in_which_nothing_was_measured(finished, tmp_path):
    folder = pick_into(tmp_path / "picked", *finished)
    values = json.loads((folder / "recipe.json").read_text())
    before = pp.load(folder)(torch.ones(1, 1, 8, 8))
    for name in ("widths", "versions", "figures", "dense", "dense_sha256", "fine_tune", "earlier"):
        del values[name]
    for name in ("mean", "std", "data", "data_sha256"):
        del values["source"][name]
    for old, new in (("step_epochs", "step_share"), ("gate_epochs", "gate_share")):
        values["policy"][old] = values["policy"].pop(new)
    values["policy"] |= {"schedule": "holistic", "gate_epochs": 0.5}
    (folder / "recipe.json").write_text(json.dumps({**values, "schema": 1}))
    recipe = read_recipe(folder / "recipe.json")
    assert (recipe.schema, recipe.figures, recipe.widths) == (SCHEMA, None, {})
    assert (recipe.policy.gate_share, recipe.policy.step_share) == (0.5, 0.0)
    assert torch.equal(pp.load(folder)(torch.ones(1, 1, 8, 8)), before)
    with pytest.raises(UserError, match="unknown field 'widths'"):
        recipe_from_json({**values, "schema": 1, "widths": {}})


def test_the_python_pick_has_model_policy_widths_and_figures(finished, tmp_path):
    run, front = finished
    picked = Result(front, run).pick(trial=2)
    assert picked.policy == Policy("l2")
    assert picked.widths["conv1"] == picked.model.conv1.out_channels
    assert picked.evaluation.trial == 2
    picked.save(tmp_path / "picked")
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(pp.load(tmp_path / "picked")(images), picked.model(images))
    assert len(repr(picked)) < 400 > len(repr(Result(front, run)))


def test_a_run_is_read_without_a_change_to_it(tmp_path):
    write_run(tmp_path / "run", trials=4)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    result = pp.read_run(tmp_path / "run")
    assert result.front == front_from_json(json.loads((tmp_path / "run/front.json").read_text()))
    assert "points, at the target" in repr(result)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files
    with pytest.raises(UserError, match=r"without config\.json"):
        pp.read_run(tmp_path)
