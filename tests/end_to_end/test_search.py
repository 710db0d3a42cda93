"""The README's search: its front, its answer at the target, its run folder, its ledger."""

import json
import re
import shutil
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
import torch
from command_line import call, call_here
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import paretoprune as pp
from paretoprune.search.optimizer.search_space import SCORES_NOT_SAMPLED
from paretoprune.spaces.records.pareto_front import front_from_json
from paretoprune.spaces.records.recipe import read_recipe
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.metrics.count_macs import count_macs_and_params
from paretoprune.trainers.metrics.evaluate import evaluate

pytestmark = pytest.mark.xdist_group("run")


def load_study(folder, name="search"):
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return optuna.load_study(study_name=name, storage=storage)


def finished(folder, name="search"):
    """The trials that came to an end; hopeless ones are stopped on their way."""
    return [t for t in load_study(folder, name).trials if t.state == TrialState.COMPLETE]


def networks(front):
    return [*front["points"], front["at_target"], *front["controls"].values()]


def test_the_answer_at_the_target_is_close_below_it_and_close_to_dense(run):
    answer, dense = run.front["at_target"], run.front["dense"]
    small = pp.load(run.folder / answer["path"])
    macs, params = count_macs_and_params(small, (1, 8, 8))
    assert (macs, params) == (answer["macs"], answer["params"])
    assert 0.38 < macs / dense["macs"] <= 0.40
    assert answer["test_accuracy"] >= dense["test_accuracy"] - 0.02


def test_every_network_of_the_front_costs_what_front_json_says(run):
    for point in networks(run.front):
        small = pp.load(run.folder / point["path"])
        assert count_macs_and_params(small, (1, 8, 8)) == (point["macs"], point["params"])
        assert point["flops_fraction"] == point["macs"] / run.front["dense"]["macs"]


def test_reloaded_networks_have_the_accuracy_that_was_measured(run):
    data = load_data("digits")
    for point in networks(run.front):
        small = pp.load(run.folder / point["path"])
        assert evaluate(small, data.validation, data).accuracy == pytest.approx(point["accuracy"])
        assert evaluate(small, data.test, data).accuracy == pytest.approx(point["test_accuracy"])


def test_both_controls_are_run_at_the_target(run):
    assert set(run.front["controls"]) == {"uniform", "random"}
    for control in run.front["controls"].values():
        assert 0.38 < control["flops_fraction"] <= 0.40
        assert control["trial"] is None


def test_front_json_keeps_to_the_contract(run):
    front = run.front
    assert list(front) == [
        "schema",
        "seed",
        "requested",
        "objectives",
        "dense",
        "points",
        "at_target",
        "controls",
        "picked",
    ]
    assert set(front["picked"]["above"]) == set(front["controls"])
    assert front["requested"] == {"flops": 0.4, "params": 0.5}
    assert set(front["dense"]) >= {"accuracy", "test_accuracy", "macs", "params", "latency_ms"}
    assert "dominated_by" in front["at_target"]
    assert front["objectives"] == ["accuracy", "flops_fraction", "params_fraction"]
    wanted = {"trial", "accuracy", "test_accuracy", "loss", "macs", "params", "flops_fraction",
              "params_fraction", "latency_ms", "epochs", "seconds", "policy", "path",
              "origin"}  # fmt: skip
    for point in networks(front):
        assert wanted <= set(point)
        assert all(point[name] is not None for name in wanted - {"trial"})
    assert front_from_json(front).to_json() == front


def test_half_of_the_trials_aim_at_the_target_and_the_rest_is_spread(run):
    jobs = [t.user_attrs["job"] for t in load_study(run.folder).trials]
    targets = [job["target"]["flops"] for job in jobs]
    spread = [t for t in targets if t != 0.4]
    assert len(targets) == 8
    assert len(spread) == 4
    assert len(set(spread)) == 4
    assert min(spread) < 0.4 < max(spread)


def test_policies_differ_and_explain_the_masks(run):
    trials = finished(run.folder)
    masks = {t.number: read_recipe(run.folder / f"trials/{t.number}/recipe.json") for t in trials}
    assert len({json.dumps(t.params, sort_keys=True) for t in trials}) >= 6
    assert len({recipe.removed for recipe in masks.values()}) >= 6
    for trial in trials:
        assert masks[trial.number].policy.to_json() == trial.user_attrs["job"]["policy"]
        values = masks[trial.number].policy.to_json()
        for name in set(values) & set(trial.params):
            assert values[name] == trial.params[name]


def test_the_run_folder_holds_what_the_design_says(run):
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {
        "config.json",
        "journal.log",
        "evidence",
        "trials",
        "front.json",
        "report.html",
        "space.json",
    }
    assert not list(run.folder.rglob("*.partial"))
    assert json.loads((run.folder / "config.json").read_text())["machine"]["device"]


def test_the_report_of_a_search_holds_its_front_and_its_widths(run):
    page = (run.folder / "report.html").read_text()
    values = json.loads(re.search(r'id="values">(.*?)</script>', page)[1])
    shown = {point["id"]: point for point in values["points"]}
    assert {n for n, p in shown.items() if p["front"]} == {p["path"] for p in run.front["points"]}
    for point in networks(run.front):
        recipe = read_recipe(run.folder / point["path"] / "recipe.json")
        assert sum(shown[point["path"]]["kept"]) == recipe.atoms - len(recipe.removed)
        assert shown[point["path"]]["test"] == point["test_accuracy"]
    assert values["evidence"]["scores"]
    assert dict(values["versions"])["torch"] == torch.__version__.partition("+")[0]


def test_weights_are_kept_for_the_front_the_answer_and_the_controls_only(run):
    kept = {
        p.parent.relative_to(run.folder).as_posix() for p in run.folder.rglob("trials/*/weights*")
    }
    assert kept == {point["path"] for point in networks(run.front)}
    trials = len(finished(run.folder)) + len(finished(run.folder, "controls"))
    assert len(list(run.folder.rglob("trials/*/recipe.json"))) == trials


def test_the_ledger_is_readable_by_optuna_as_it_is(run):
    study = load_study(run.folder)
    assert len(study.trials) == 8
    assert study.metric_names == ["accuracy", "flops_fraction", "params_fraction"]
    assert {t.number for t in study.best_trials} == {p["trial"] for p in run.front["points"]}


def test_the_dashboard_opens_the_journal(run):
    from optuna_dashboard import wsgi

    storage = JournalStorage(JournalFileBackend(str(run.folder / "journal.log")))
    environ = {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(environ)
    statuses = []
    body = wsgi(storage)(environ, lambda status, *_: statuses.append(status))
    assert statuses == ["200 OK"]
    names = {study["study_name"] for study in json.loads(b"".join(body))["study_summaries"]}
    assert names == {"search", "controls", "finals"}


def test_the_output_ends_with_a_table_and_the_line_that_picks(run):
    for word in ("accuracy", "FLOPs %", "params %", "trial", "policy", "control uniform",
                 "control random", "paretoprune pick"):  # fmt: skip
        assert word in run.stdout
    assert "Traceback" not in run.stdout
    assert "\x1b" not in run.stdout  # plain in a pipe
    assert re.search(r"10/10 trials \| best at target 0\.\d+ \| ETA", run.stdout)
    assert "raylet" not in run.stdout


def test_front_and_pick_read_the_run(run, tmp_path):
    shown = call_here("front", run.folder)
    assert shown.returncode == 0
    assert "at the target" in shown.stdout
    assert json.loads(call_here("front", run.folder, "--json").stdout) == run.front
    out = tmp_path / "picked"
    picked = call("pick", run.folder, "--max-flops", "0.4", "--out", out)
    assert picked.returncode == 0, picked.stderr
    assert count_macs_and_params(pp.load(out), (1, 8, 8))[0] <= 0.4 * run.front["dense"]["macs"]
    again = call_here("pick", run.folder, "--max-flops", "0.4", "--out", out)
    assert again.returncode == 2
    assert "must be an empty folder" in again.stderr


def test_pick_says_what_is_nearest_when_nothing_fits(run, tmp_path):
    done = call_here("pick", run.folder, "--max-flops", "0.001", "--out", tmp_path / "picked")
    assert done.returncode == 2
    assert "the nearest: trial" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "picked").exists()


def test_a_network_saved_and_loaded_again_has_the_same_outputs(run):
    path = run.folder / run.front["at_target"]["path"]
    first, second = pp.load(path), pp.load(path)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(first(images), second(images))


def test_the_evidence_is_numbers_only_and_named_by_its_hash(run):
    from paretoprune.analysis.scores import all_scores
    from paretoprune.spaces.policy.measurements import load_arrays, scores_from_arrays

    folder = run.folder / "evidence"
    tables = [load_arrays(path.stem, folder) for path in folder.glob("*.npz")]
    found = [name for table in tables for name in scores_from_arrays(table)]
    assert sorted(found) == [name for name in all_scores() if name not in SCORES_NOT_SAMPLED[1:]]
    assert load_arrays("0" * 32, Path(run.folder / "evidence")) is None


def test_a_finished_run_is_told_again_and_starts_nothing(run, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(run.folder, folder)
    for name in ("front.json", "report.html", "ray.log"):
        (folder / name).unlink()
    done = call("search", "--resume", folder)
    assert done.returncode == 0, done.stderr
    assert "all of its 8 trials; add more --trials to continue it" in done.stdout
    assert table_of(done.stdout) == table_of(run.stdout)
    assert json.loads((folder / "front.json").read_text()) == run.front
    assert (folder / "report.html").exists()
    assert not (folder / "ray.log").exists()


def table_of(stdout):
    return stdout[stdout.index("Front (") : stdout.index("run folder:")]


@pytest.mark.slow
def test_a_finished_run_goes_on_with_more_trials(run, tmp_path):
    folder = tmp_path / "longer"
    shutil.copytree(run.folder, folder)
    before = {trial.number: trial.values for trial in finished(folder)}
    done = call("search", "--resume", folder, "--trials", 10)
    assert done.returncode == 0, done.stderr
    assert "12/12 trials" in done.stdout
    after = {trial.number: trial.values for trial in finished(folder)}
    assert after.items() >= before.items()
    assert json.loads((folder / "config.json").read_text())["settings"]["trials"] == 10
    again = call("search", "--resume", folder)
    assert again.returncode == 0, again.stderr
    assert (folder / "report.html").exists()
