"""Transfer: the policies of one search's front open another search."""

import json
import shutil
from dataclasses import replace
from functools import partial

import optuna
import pytest
from command_line import call, call_here
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from run_folders import hostile_network, write_run

import paretoprune as pp
from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.search.driver.warm_start import proposals_from_run, proposals_in_space
from paretoprune.search.optimizer.plan import make_plan
from paretoprune.search.optimizer.proposer import make_proposer, untried_presets
from paretoprune.search.optimizer.screening import PolicyPredictor, Proposal
from paretoprune.search.optimizer.search_space import PolicySpace
from paretoprune.spaces.allocations.decode import PruningSpace
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.policy import Policy
from paretoprune.spaces.records.pareto_front import front_from_json

SMALL = ("--epochs", 0.2, "--dense-epochs", 1, "--no-screening", "--ensemble-images", 1024,
         "--scores", "taylor", "--schedules", "one-shot",
         "--allocations", "global-threshold")  # fmt: skip


def jobs_of(folder):
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    study = optuna.load_study(study_name="search", storage=storage)
    return [trial.user_attrs["job"] for trial in study.trials]


def test_the_answer_at_the_target_comes_first_and_no_policy_twice(tmp_path):
    write_run(tmp_path / "run")
    front = front_from_json(json.loads((tmp_path / "run" / "front.json").read_text()))
    found = proposals_from_run(tmp_path / "run")
    assert found[0].policy == front.at_target.policy
    assert found[0].origin == f"transfer:{front.at_target.trial}"
    assert {one.policy for one in found[1:]} | {found[0].policy} == {
        *(point.policy for point in front.points),
        front.at_target.policy,
    }
    assert len({one.policy for one in found}) == len(found)


def test_what_the_new_space_does_not_contain_is_named_and_left_out():
    usual = Policy("taylor")
    staged = replace(usual, stages=(1.0, 0.0, 2.0, 0.0))
    others = [
        (Policy("my-own"), "score my-own"),
        (replace(usual, schedule="gradual", steps=3), "schedule gradual"),
        (replace(usual, allocation="uniform"), "allocation uniform"),
        (replace(staged, stages=staged.stages * 2), "4 stages"),
        (replace(usual, floor=7), "values"),
    ]
    space = PolicySpace(("taylor", "l2"), ("global-threshold",), ("one-shot",), stages=2)
    said = []
    asked = [Proposal(policy, f"transfer:{n}") for n, (policy, _) in enumerate(others)]
    kept = proposals_in_space(
        [*asked, Proposal(usual, "a"), Proposal(staged, "b")], space, said.append
    )
    assert [one.origin for one in kept] == ["a", "b"]
    assert len(said) == len(others)
    for line, one, (_, reason) in zip(said, asked, others, strict=True):
        assert line.startswith(one.origin)
        assert reason in line


def test_transferred_policies_take_the_first_places_at_the_target_and_presets_the_next():
    network = hostile_network()
    space = PruningSpace(network.channel_map, CostModel(network.channel_map))
    measuring = MeasurementContext(network.model, network.channel_map, network.data, 0, None, 1024)
    on = PolicyPredictor(space, measure_for_policies([Policy("l2")], measuring))
    plan = make_plan(10, Target(flops=0.5), space)
    also = [Proposal(Policy("l2", distill=d), f"transfer:{d}") for d in (0.1, 0.2)]
    policies = PolicySpace(("l2", "mean-abs-weight", "taylor"))
    make = partial(
        make_proposer, policy_space=policies, unfitted=on, evaluate_untrained=None, seed=0
    )
    proposer = make(plan, sampler="tpe", warm_start=also)
    origins = {place: one.origin for place, one in sorted(proposer.initial.items())}
    presets = [f"preset:{name}" for name in policies.presets]
    assert list(origins) == [0, 2, 4, 6, 8]  # those at the target
    assert list(origins.values()) == [*(one.origin for one in also), *presets][:5]
    assert [f"preset:{name}" for name in untried_presets(policies, proposer.initial)] == presets[
        3:
    ]
    again = [Proposal(policies.presets["taylor-by-price"], "transfer:7")]
    opening = make(plan, sampler="tpe", warm_start=again).initial
    assert [one.origin for one in opening.values()] == ["transfer:7", *presets[1:5]]
    assert not untried_presets(policies, opening)


@pytest.mark.slow
def test_transferred_policies_open_the_search_even_after_a_stop_without_the_old_run(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    write_run(old)
    told = [one for one in proposals_from_run(old) if one.policy.score == "l2"]
    assert len(told) > 1
    begun = call("transfer", old, "--target-flops", 0.5, "--trials", 3, *SMALL, "--scores", "l2",
                 "--max-minutes", 1e-6, "--out", new)  # fmt: skip
    assert "transfer:" in begun.stdout  # those that rank by taylor are named
    assert (
        "of the 1e-06 minutes of --max-minutes have passed before the first trial" in begun.stdout
    )
    assert [job["slot"] for job in jobs_of(new)] == [0]
    shutil.rmtree(old)
    done = call("search", "--resume", new, "--max-minutes", 10)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {job["slot"]: job for job in jobs_of(new)}
    for slot, one in zip((0, 2), told, strict=False):  # those at the target
        assert jobs[slot]["origin"] == one.origin
        assert jobs[slot]["policy"] == one.policy.to_json()


@pytest.mark.slow
def test_the_call_takes_a_result_or_its_folder(tmp_path):
    small = {"epochs": 0.2, "dense_epochs": 1, "screening": False, "ensemble_images": 1024,
             "scores": "taylor", "schedules": "one-shot", "allocations": "global-threshold",
             "trials": 1, "quiet": True, "target_flops": 0.5}  # fmt: skip
    first = pp.search("digits-resnet", "digits", out=tmp_path / "a", **small)
    for like, out in ((first, "b"), (tmp_path / "a", "c")):
        other = {**small, "target_flops": 0.4}
        pp.search("digits-resnet", "digits", like=like, out=tmp_path / out, **other)
        [job] = jobs_of(tmp_path / out)
        assert job["origin"] == f"transfer:{first.at_target.trial}"
        assert job["policy"] == first.at_target.policy.to_json()


def test_a_folder_without_a_front_is_refused_in_one_line(tmp_path):
    done = call_here("transfer", tmp_path, "--target-flops", 0.5)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "config.json" in done.stderr
