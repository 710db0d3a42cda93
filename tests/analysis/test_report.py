"""The report is built from the run folder alone; the page is tested in a browser."""

import json
import re
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from command_line import call, call_here
from evaluations import evaluation
from run_folders import HOSTILE, TARGET, hostile_network, write_run

from paretoprune.analysis.report import MeasurementPlots, Report, ReportedTrial, render_page
from paretoprune.analysis.report.hypervolume_history import hypervolume_history
from paretoprune.analysis.report.measurements import score_plot
from paretoprune.search.cli.handlers import print_front
from paretoprune.search.results.report_builder import build_report, report_command, write_report
from paretoprune.search.results.run_summary import read_run_front
from paretoprune.search.storage.trial_records import build_front
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.layout import GroupLayout, Layout, build_layout, layout_from_json
from paretoprune.spaces.policy.policy import POLICY_PRESETS
from paretoprune.spaces.records.gate_history import GATE_HISTORY_FILE
from paretoprune.spaces.records.pareto_front import DenseMetrics, Front, front_hypervolume
from paretoprune.trainers.pruning.surgery import prune_network


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with hostile names, in a folder with a hostile name, and its page."""
    folder = tmp_path_factory.mktemp("runs") / "<img src=x onerror=alert(1)> & co"
    _, front = write_run(folder, evidence=True)
    before = contents(folder)
    write_report(folder, folder / "report.html")
    return folder, front, before


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def opened(made, tab):
    """The page, freshly opened."""
    tab.complaints.clear()
    tab.requests.clear()
    tab.resize(1280, 900)
    tab.open((made[0] / "report.html").as_uri())
    return tab, made[0], made[1]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_page_opens_without_errors_or_requests_and_shows_the_front(opened):
    tab, folder, front = opened
    assert tab.complaints == []
    assert tab.requests == [(folder / "report.html").as_uri()]
    assert tab.ask("document.querySelectorAll('#plot .on-front').length") == len(front["points"])
    ids = tab.ask("[...document.querySelectorAll('#plot .on-front')].map(n => n.dataset.id)")
    assert set(ids) == {point["path"] for point in front["points"]}
    assert tab.ask("document.querySelectorAll('#plot .control').length") == 2
    assert tab.ask("document.querySelectorAll('#plot .dense').length") == 1
    assert tab.ask("document.querySelectorAll('#plot .limit').length") == 1


def test_a_click_shows_the_policy_the_widths_and_the_pick_command(opened):
    tab, folder, front = opened
    point = front["points"][0]
    tab.ask(f"byPoint({point['path']!r}).dispatchEvent(new MouseEvent('click'))")
    details = tab.ask("byId('details').textContent")
    assert f"trial {point['trial']}" in details
    assert f"{point['accuracy']:.4f}" in details
    for name in ("score", "normalisation"):
        assert point["policy"][name] in details
    command = shlex.split(tab.ask("document.querySelector('#details code').textContent"))
    assert command[:2] == ["paretoprune", "pick"]
    assert command[2:5] == [str(folder), "--trial", str(point["trial"])]
    recipe = json.loads((folder / point["path"] / "recipe.json").read_text())
    kept = tab.ask("[...document.querySelectorAll('#widths td:nth-child(3)')].map(parseKept)"
                   .replace("parseKept", "n => parseInt(n.textContent)"))  # fmt: skip
    assert sum(kept) == recipe["atoms"] - len(recipe["removed"])
    assert tab.complaints == []


def test_arrow_keys_move_between_points_and_enter_selects(opened):
    tab, _, front = opened
    assert tab.ask("document.querySelectorAll('#plot [tabindex=\"0\"]').length") == 1
    smallest = min(front["points"], key=lambda point: point["flops_fraction"])["path"]
    tab.ask(f"byPoint({smallest!r}).focus()")
    tab.press("ArrowRight")
    second = tab.ask("document.activeElement.dataset.id")
    assert second != smallest
    tab.press("Enter")
    assert tab.ask("state.selected") == second
    assert tab.ask(f"byPoint({second!r}).getAttribute('aria-pressed')") == "true"
    assert tab.ask("document.activeElement.dataset.id") == second  # the focus is kept
    label = tab.ask("document.activeElement.getAttribute('aria-label')")
    assert "accuracy" in label
    assert "FLOPs" in label


def test_user_defined_names_are_escaped_everywhere(opened):
    tab, folder, _ = opened
    assert tab.ask("typeof window.broken") == "undefined"
    assert tab.ask("document.querySelectorAll('img').length") == 0
    assert tab.ask("document.title") == folder.name
    assert tab.ask("document.querySelector('h1').textContent") == folder.name
    name = HOSTILE.replace(".", "")
    assert name in tab.ask("byId('widths').textContent")
    assert HOSTILE in tab.ask("byId('failures').textContent")
    source = (folder / "report.html").read_text()
    assert source.count("<script") == 2  # the values and the program
    assert "<img" not in source


def test_the_table_sorts_filters_and_holds_every_trial(opened):
    tab, _, front = opened
    rows = "[...document.querySelectorAll('#table tbody tr')]"
    assert tab.ask(f"{rows}.length") == 12 + 2 + 1  # trials, controls, dense
    tab.ask("document.querySelector('#table button[data-key=flopsShare]').click()")
    column = f"{rows}.map(r => parseFloat(r.cells[3].innerText))"
    shares = tab.ask(column)
    assert shares == sorted(shares, reverse=True)
    assert tab.ask("document.querySelector('th[aria-sort]').textContent") == "FLOPs"
    tab.ask("document.querySelector('#table button[data-key=flopsShare]').click()")
    assert tab.ask(column) == shares[::-1]
    tab.ask("byId('filter').value = 'taylor'; byId('filter').dispatchEvent(new Event('input'))")
    words = tab.ask(f"{rows}.map(r => r.textContent)")
    assert words
    assert all("taylor" in row for row in words)
    tab.ask("byId('filter').value = ''; byId('filter').dispatchEvent(new Event('input'))")
    tab.ask("document.querySelector('#only input[value=front]').click()")
    answer = front["at_target"]["path"]
    named = {point["path"] for point in front["points"]} | {answer}
    assert set(tab.ask(f"{rows}.map(r => r.dataset.id)")) == named


def test_the_size_axis_can_be_params_or_latency(opened):
    tab, _, front = opened
    places = (
        "[...document.querySelectorAll('#plot .on-front')].map(n => n.getAttribute('transform'))"
    )
    before = tab.ask(places)
    tab.ask("document.querySelector('#axis input[value=paramsShare]').click()")
    assert tab.ask(places) != before
    assert len(tab.ask(places)) == len(front["points"])
    tab.ask("document.querySelector('#axis input[value=latency]').click()")
    assert len(tab.ask(places)) == len(front["points"])
    assert tab.complaints == []


def test_a_collapsed_point_does_not_squash_the_others(opened):
    tab, _, _ = opened
    assert tab.ask("notCollapsed([0.97, 0.25, 0.98, 0.96, 0.99])") == [0.96, 0.97, 0.98, 0.99]
    assert tab.ask("notCollapsed([0.6, 0.7, 0.8, 0.9])") == [0.6, 0.7, 0.8, 0.9]
    before = tab.ask("byPoint(chosen().id).getAttribute('transform')")
    lowest = "values.points.filter(p => p.front && !p.answer)[0]"
    tab.ask(f"{lowest}.accuracy = -40; drawFront()")
    assert (
        tab.ask("byPoint(chosen().id).getAttribute('transform')").split(",")[0]
        == (before.split(",")[0])
    )
    shape = f"byPoint({lowest}.id).querySelector('.mark').getAttribute('d')"
    assert tab.ask(shape) == tab.ask("SHAPES.down(5.5)")
    tab.ask("document.querySelector('#view input[value=all]').click()")
    assert tab.ask(shape) == tab.ask("SHAPES.circle(5.5)")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, True)])
def test_the_page_fits_its_screen_in_light_and_dark(opened, width, dark):
    tab, folder, _ = opened
    tab.resize(width, 844, dark=dark)
    tab.open((folder / "report.html").as_uri())
    assert tab.ask("document.documentElement.scrollWidth <= innerWidth")
    paper = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(n) for n in re.findall(r"\d+", paper)) < 200) == dark


def test_measurements_are_drawn_with_errors_and_curves(opened):
    tab, _, _ = opened
    assert tab.ask("byId('score').selectedOptions[0].textContent") == "ensemble"
    atoms = tab.ask("document.querySelectorAll('#scores circle').length")
    assert atoms == hostile_network().channel_map.atoms
    assert tab.ask("document.querySelectorAll('#scores line[stroke-opacity]').length") == atoms
    assert "square of the rise of log(1 + loss)" in tab.ask("byId('scores').textContent")
    settled = tab.ask("byId('settled').textContent")
    assert "the rank correlation of two halves is" in settled
    groups = len(hostile_network().channel_map.groups)
    assert tab.ask("document.querySelectorAll('#curves path').length") == groups


def test_the_gate_history_is_drawn_with_its_target(opened):
    tab, _, _ = opened
    assert tab.ask("byId('course-section').hidden") is False
    assert tab.ask("byId('course-name').textContent") == "trial 11"
    assert tab.ask("document.querySelectorAll('#course path').length") == 2
    count = "document.querySelectorAll('#course line[stroke-dasharray]').length"
    assert tab.ask(count) == 1  # there is no target for parameters
    moved = "In the end the last step to the exact budget turned 2 of 40 atoms."
    assert tab.ask("byId('course-moved').textContent") == moved


def test_an_invalid_gate_history_is_left_out(tmp_path):
    writer, _ = write_run(tmp_path / "run", trials=4)
    gated = writer.add(POLICY_PRESETS["holistic"])
    for text in ("{}", "[]", '{"steps": [1, 2], "flops": [1.0], "params": [1.0, 0.5]}'):
        (tmp_path / "run" / gated.path / GATE_HISTORY_FILE).write_text(text)
        assert all(one.gate_history is None for one in build_report(tmp_path / "run").trials)


def test_a_report_changes_nothing_in_the_run_and_needs_neither_network_nor_plugin(made):
    folder, _, before = made  # its model, data and plugin do not exist
    after = contents(folder)
    assert after.pop(folder / "report.html")
    assert after == before


def test_an_older_run_without_space_json_is_shown_without_widths(tmp_path):
    write_run(tmp_path / "run", trials=4, space=False)
    report = build_report(tmp_path / "run")
    assert report.layout == Layout()
    assert all(one.kept is None for one in report.trials)
    assert "trials/0" in render_page(report)


def test_the_page_compares_with_the_controls_with_and_without_scripts(opened):
    tab, folder, _ = opened
    report = build_report(folder)
    assert report.control_comparison.startswith(f"trial {report.front.picked.trial}: ")
    assert f"<p>{report.control_comparison}</p>" in render_page(report)
    assert tab.ask("document.getElementById('verdict').textContent") == report.control_comparison


def test_the_page_of_a_run_without_finished_trials_says_so(tmp_path, tab):
    folder = tmp_path / "run"
    write_run(folder, trials=1)
    (folder / "journal.log").unlink()
    (folder / "front.json").unlink()
    write_report(folder, tmp_path / "page.html")
    tab.complaints.clear()
    tab.open((tmp_path / "page.html").as_uri())
    assert tab.complaints == []
    assert "No trial has finished yet" in tab.ask("byId('waiting').innerText")


def test_a_page_of_many_trials_of_a_large_network_stays_below_five_megabytes():
    groups = tuple(
        GroupLayout(
            f"layer4.{g}.downsample.conv", (f"layer4.{g}.conv", "x"), (512, 512), k, k + 512
        )
        for g, k in enumerate(range(0, 40 * 512, 512))
    )
    layout = Layout(groups)
    scores = np.random.default_rng(0).random((16, layout.atoms))
    plots = MeasurementPlots(tuple(score_plot(str(k), s, layout, s) for k, s in enumerate(scores)))
    sizes = np.random.default_rng(0).permutation(500).tolist()
    points = [evaluation(trial=k, macs=1 + size, accuracy=k / 500) for k, size in enumerate(sizes)]
    front = Front(0, TARGET, DenseMetrics(0.9, 1000, 100), tuple(points), points[0], {})
    shown = tuple(ReportedTrial(f"trial {p.trial}", p, "w" * 60, (512,) * 40) for p in points)
    text = render_page(Report("large", front, trials=shown, layout=layout, measurements=plots))
    assert len(text.encode()) < 5e6


def test_the_history_is_the_hypervolume_of_finished_trials():
    rng = np.random.default_rng(1)
    points = [
        evaluation(float(a), int(m), int(p), trial=k)
        for k, (a, m, p) in enumerate(
            zip(rng.random(20), rng.integers(1, 999, 20), rng.integers(1, 99, 20), strict=True)
        )
    ]
    values = hypervolume_history(points)
    assert values == sorted(values)
    for count in range(1, 21):
        assert values[count - 1] == pytest.approx(front_hypervolume(points[:count]))


def test_the_layout_gives_the_widths_of_a_pruned_network():
    network = hostile_network()
    layout = build_layout(network.channel_map)
    keep = np.ones(network.channel_map.atoms, bool)
    keep[[1, 2, layout.groups[1].first]] = False
    small = prune_network(network.model, network.channel_map, keep)
    widths = [m.weight.shape[0] for m in small.modules() if hasattr(m, "weight")][:2]
    assert layout.kept(keep) == tuple(widths)
    assert [group.channels for group in layout.groups] == [(16,), (12,)]
    assert layout_from_json(json.loads(json.dumps(layout.to_json()))) == layout


@pytest.mark.parametrize(
    "values",
    [{"schema": 2}, [], {"schema": 1}, {"schema": 1, "groups": [{"name": "x"}]},
     {"schema": 1, "groups": [{"name": "x", "layers": [], "channels": [], "first": 1, "end": 2}]}],
)  # fmt: skip
def test_an_invalid_layout_raises_a_user_error(values):
    with pytest.raises(UserError) as error:
        layout_from_json(values)
    assert "\n" not in str(error.value)


def test_foreign_files_among_the_measurements_are_left_out(tmp_path):
    folder = tmp_path / "run"
    write_run(folder, trials=2)
    (folder / "evidence").mkdir()
    (folder / "evidence" / "a.npz").write_bytes(b"no arrays")
    np.savez(folder / "evidence" / "b.npz", x=np.array([{"pickled": 1}], dtype=object))
    assert build_report(folder).measurements == MeasurementPlots()


def test_a_recipe_is_read_from_the_run_folder_only(tmp_path):
    folder = tmp_path / "run"
    write_run(folder, trials=2)
    journal = (folder / "journal.log").read_text()
    (tmp_path / "1").mkdir()
    (folder / "trials" / "1" / "recipe.json").rename(tmp_path / "1" / "recipe.json")
    (folder / "journal.log").write_text(journal.replace("trials/1", "../1"))
    assert build_report(folder).trials[1].kept is None


def test_the_command_writes_the_page_and_the_figures(made, tmp_path):
    folder, front, _ = made
    out, svg, png = (tmp_path / name for name in ("a.html", "b.svg", "c.png"))
    done = call("report", folder, "--out", out, "--svg", svg, "--png", png)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size < 200_000
    assert svg.read_text().count("<circle") >= len(front["points"]) - 1
    assert png.read_bytes().startswith(b"\x89PNG")
    wrong = call_here("report", folder, "--png", "x.gif")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1


def test_front_prints_what_mattered_below_its_table(made, capsys):
    print_front(made[0], as_json=False)
    shown = capsys.readouterr().out
    assert "what mattered, between trials of like size" in shown
    assert "at the target (FLOPs <= 50 %): trial 0" in shown


def test_an_unwritable_file_raises_a_user_error(made):
    with pytest.raises(UserError, match=r"another with out$"):
        report_command(made[0], Path("/proc/none/x.html"), [])
    with pytest.raises(UserError, match="writable"):
        report_command(made[0], None, [Path("/proc/none/x.svg")])


def test_test_metrics_come_from_front_json(made):
    folder, front, _ = made
    report = build_report(folder)
    assert report.front.points == tuple(
        replace(p, test_accuracy=q["test_accuracy"], latency_ms=q["latency_ms"])
        for p, q in zip(report.front.points, front["points"], strict=True)
    )
    assert report.front.points[0].test_accuracy is not None
    assert report.front.dense.latency_ms == 2.0


def test_an_older_front_json_hides_no_newer_trials(made, tmp_path):
    run = shutil.copytree(made[0], tmp_path / "run")
    values = json.loads((run / "front.json").read_text())
    first = values["points"][0]
    (run / "front.json").write_text(json.dumps({**values, "points": [first], "at_target": first}))
    _, front = read_run_front(run)
    assert len(front.points) == len(made[1]["points"]) > 1
    assert front.at_target.trial == made[1]["at_target"]["trial"]
    assert front.points[0].test_accuracy == first["test_accuracy"]


def test_a_network_that_is_slow_when_timed_alone_leaves_the_front():
    """No other network replaces it, because dominated networks have no weights any more."""
    good, bad, worse = (
        replace(evaluation(a, trial=n), latency_ms=ms, path=f"trials/{n}")
        for n, (a, ms) in enumerate(((0.9, 2.0), (0.8, 1.0), (0.7, 1.05)))
    )
    names = ("accuracy", "latency_ms")
    summary = {
        "dense": asdict(DenseMetrics(0.95, 1000, 100)),
        "requested": TARGET.to_json(),
        "seed": 0,
        "objectives": names,
    }
    found = [good, bad, worse]
    assert {p.trial for p in build_front(found, {}, summary).points} == {0, 1}
    alone = {"trials/0": {"test_accuracy": 0.88, "latency_ms": 1.0},
             "trials/1": {"test_accuracy": 0.77, "latency_ms": 1.1}}  # fmt: skip
    (point,) = build_front(found, {}, summary, alone).points
    assert (point.trial, point.test_accuracy, point.latency_ms) == (0, 0.88, 1.0)
