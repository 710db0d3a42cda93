"""Rehearsed masks, what they foretell, which policies are tried because of it, and variations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from torch.nn import functional
from trial_stores import SPACE as LEDGER_SPACE
from trial_stores import measured, open_ledger, run_to_the_end

from paretoprune.analysis.mask_ensembles.masked_loss import batch_norm_on_batches
from paretoprune.analysis.mask_ensembles.posterior import spearman_correlation
from paretoprune.analysis.measure import (
    MeasurementContext,
    MeasurementLimits,
    ignore_progress,
    measure_for_policies,
)
from paretoprune.analysis.untrained_loss import (
    best_temperature_loss,
    evaluate_untrained,
    fit_untrained_loss_predictor,
    removed_worth_by_group,
)
from paretoprune.search.optimizer import screening
from paretoprune.search.optimizer.mutation import MIN_FINISHED_TRIALS, propose_mutation, thin_front
from paretoprune.search.optimizer.screening import (
    EVALUATED_PER_GENERATION,
    FIRST,
    PolicyPredictor,
    Proposal,
    screen_policies,
)
from paretoprune.search.optimizer.search_space import build_policy_space
from paretoprune.search.optimizer.suggesters import MutatingSuggester
from paretoprune.search.optimizer.target_plan import PlannedTrial, make_plan
from paretoprune.search.results.screening_quality import describe_screening, screening_correlation
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.policy import POLICY_PRESETS, Policy
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.trainers.data.batches import fixed_subset
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.types import normalize_images
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.pruning.masking import masked
from paretoprune.trainers.runtime.modes import eval_mode

POLICIES = build_policy_space(
    ("taylor", "l2", "mean-abs-weight"), ("global-threshold", "loss-budget"), (), stages=3
)


@pytest.fixture(scope="module")
def measuring(tmp_path_factory):
    data = load_data("digits")
    model, _ = make_working_copy(
        build_model("digits-resnet", classes=10, input_shape=data.input_shape, seed=0)
    )
    channel_map, folder = trace_channel_map(model, data.input_shape), tmp_path_factory.mktemp("kept")
    return MeasurementContext(model.eval(), channel_map, data, 0, folder)


@pytest.fixture(scope="module")
def blind(measuring):
    evidence = measure_for_policies(
        POLICIES.read, replace(measuring, limits=MeasurementLimits(curve_images=256))
    )
    return PolicyPredictor(
        PruningSpace(measuring.channel_map, CostModel(measuring.channel_map)), evidence
    )


def random_masks(channel_map, count, seed=0):
    masks = np.random.default_rng(seed).random((count, channel_map.atoms)) < 0.7
    for group in range(int(channel_map.group_of.max()) + 1):
        masks[:, np.flatnonzero(channel_map.group_of == group)[0]] = True
    return masks


def test_a_rehearsal_is_the_loss_of_the_masked_network_on_its_batches_statistics(measuring):
    masks = random_masks(measuring.channel_map, 3)
    split = fixed_subset(measuring.data.train, 512)
    for mask, loss in zip(
        masks, evaluate_untrained(masks, measuring, ignore_progress), strict=True
    ):
        found = []
        for rows in (slice(0, 256), slice(256, 512)):
            images = normalize_images(split.images[rows], measuring.data)
            gates = torch.from_numpy(mask)
            model = measuring.model
            with (
                torch.no_grad(),
                eval_mode(model),
                batch_norm_on_batches(model),
                masked(model, measuring.channel_map, gates),
            ):
                found.append(model(images))
        assert loss == pytest.approx(
            best_temperature_loss(torch.cat(found), split.labels[:512]), abs=1e-4
        )


def test_the_loss_of_a_rehearsal_is_that_at_the_best_temperature():
    torch.manual_seed(0)
    logits, labels = torch.randn(400, 10), torch.randint(10, (400,))
    logits[torch.arange(400), labels] += 1.5
    factors = torch.linspace(0, 2, 2001)
    best = min(float(functional.cross_entropy(logits * factor, labels)) for factor in factors)
    assert best <= best_temperature_loss(logits, labels) + 1e-6 < best + 0.004
    assert best_temperature_loss(logits * 20, labels) == pytest.approx(
        best, abs=0.004
    )  # the scale is nothing
    assert (
        best_temperature_loss(logits.roll(1, 0), labels) <= np.log(10) + 1e-6
    )  # who tells nothing apart
    assert best_temperature_loss(torch.zeros(400, 10), labels) == pytest.approx(np.log(10))
    assert np.isnan(best_temperature_loss(logits * np.inf, labels))


def test_rehearsed_masks_are_read_again_and_their_parts_do_not_matter(measuring, tmp_path):
    masks, on = random_masks(measuring.channel_map, 4), replace(measuring, folder=tmp_path)
    whole = evaluate_untrained(masks, on, ignore_progress)
    (file,) = tmp_path.glob("*.npz")
    before = file.stat().st_mtime_ns
    assert np.array_equal(evaluate_untrained(masks, on, ignore_progress), whole)
    assert file.stat().st_mtime_ns == before
    parts = [
        evaluate_untrained(masks[rows], measuring, ignore_progress) for rows in ([0, 1], [2, 3])
    ]
    assert np.array_equal(np.concatenate(parts), whole)


def test_what_groups_lose_foretells_masks_that_were_not_seen(measuring):
    rng, channel_map = np.random.default_rng(1), measuring.channel_map
    worth = rng.random(channel_map.atoms)
    keep = rng.random((260, int(channel_map.group_of.max()) + 1))  # each group its own share
    masks = rng.random((260, channel_map.atoms)) < keep[:, channel_map.group_of]
    losses = (
        1
        / (
            1.1
            - removed_worth_by_group(masks, worth_shares(worth, channel_map), channel_map.group_of)
        )
    ).sum(1)
    known = fit_untrained_loss_predictor(masks[:130], losses[:130], worth, channel_map)
    assert spearman_correlation(known.means(masks[130:]), losses[130:]) > 0.9


def worth_shares(worth, channel_map):
    return worth / np.bincount(channel_map.group_of, weights=worth)[channel_map.group_of]


def test_nothing_is_foretold_from_a_handful_or_from_no_numbers(measuring):
    masks = random_masks(measuring.channel_map, 30)
    worth = np.ones(measuring.channel_map.atoms)
    few = np.where(np.arange(30) < 5, 1.0, np.nan)
    assert fit_untrained_loss_predictor(masks, few, worth, measuring.channel_map) is None
    same = fit_untrained_loss_predictor(masks, np.ones(30), worth * 0, measuring.channel_map)
    assert np.isfinite(same.means(masks)).all()


def test_every_screened_slot_gets_its_best_or_one_that_is_level_with_it(
    measuring, blind, monkeypatch
):
    monkeypatch.setattr(screening, "GENERATIONS", rounds := 2)
    plan = make_plan(6, Target(flops=0.5), blind.space)
    seen = []

    def rehearsed(masks):
        seen.extend(mask.tobytes() for mask in masks)
        return evaluate_untrained(masks, measuring, ignore_progress)

    rng = np.random.default_rng(0)
    found, seeing = screen_policies(plan, POLICIES, blind, rehearsed, rng=rng)
    targets = len({slot.target for slot in plan})
    assert (
        len(seen)
        == len(set(seen))
        <= 1 + FIRST + targets * (1 + EVALUATED_PER_GENERATION * (1 + rounds))
    )
    assert sorted(found) == [slot.index for slot in plan]
    masks = [
        decode_policy(found[s.index].policy, s.target, blind.measurements, blind.space)
        for s in plan
    ]
    assert len({mask.tobytes() for mask in masks}) == len(plan)
    first = {slot.target: slot for slot in reversed(plan)}  # later ones leave its choice alone
    for slot in first.values():
        one = found[slot.index]
        assert (one.origin, one.policy.schedule) == ("screened", "one-shot")
        preset = decode_policy(
            POLICY_PRESETS["taylor-by-price"], slot.target, blind.measurements, blind.space
        )
        assert one.predicted <= rise(preset, seeing, measuring) + 0.02 + 1e-9
    again, _ = screen_policies(plan, POLICIES, blind, rehearsed, rng=np.random.default_rng(0))
    assert again == found
    seen.clear()
    hasty, _ = screen_policies(
        plan, POLICIES, blind, rehearsed, rng=np.random.default_rng(0), late=lambda: True
    )
    assert len(seen) <= 1 + FIRST + targets * (1 + EVALUATED_PER_GENERATION)
    assert sorted(hasty) == sorted(found)


def test_what_is_tried_in_any_case_is_not_screened(measuring, blind, monkeypatch):
    monkeypatch.setattr(screening, "FIRST", 24)
    monkeypatch.setattr(screening, "GENERATIONS", 1)
    (slot,) = make_plan(1, Target(flops=0.5), blind.space)

    def screened(opening):
        found, _ = screen_policies(
            [slot], POLICIES, blind, lambda masks: evaluate_untrained(masks, measuring, ignore_progress),
            rng=np.random.default_rng(0), opening=opening,
        )  # fmt: skip
        return found[slot.index].policy

    opening = []
    for _ in range(4):  # the best, the next best, ...
        opening.append((screened(opening), slot.target))
    masks = [
        decode_policy(policy, target, blind.measurements, blind.space)
        for policy, target in opening
    ]
    assert len({mask.tobytes() for mask in masks}) == 4
    best = opening[0][0]
    gradual = replace(POLICY_PRESETS["taylor-by-price"], schedule="gradual", steps=2)
    assert screened([(gradual, slot.target)]) == best  # nobody knows its mask


def test_variations_of_the_best_are_at_least_as_good(measuring, blind, monkeypatch):
    (slot,) = make_plan(1, Target(flops=0.4), blind.space)

    def best(generations):
        monkeypatch.setattr(screening, "GENERATIONS", generations)
        found, _ = screen_policies(
            [slot], POLICIES, blind, lambda masks: evaluate_untrained(masks, measuring, ignore_progress),
            rng=np.random.default_rng(0),
        )  # fmt: skip
        return found[slot.index].predicted

    alone = best(0)
    assert best(6) <= alone


def rise(mask, seeing, measuring):
    return evaluate_untrained(mask[None], measuring, ignore_progress)[0] - seeing.dense_loss


def test_masks_without_a_finite_loss_are_not_proposed(blind):
    plan = make_plan(4, Target(flops=0.5), blind.space)
    nowhere = screen_policies(
        plan, POLICIES, blind, lambda masks: np.full(len(masks), np.nan),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert nowhere[0] == {}
    assert nowhere[1].known is None


def finished_trials(policies):
    points = [
        Evaluation(
            trial=n, accuracy=0.8 + n / 100, loss=1.0, macs=1000 + 100 * n, params=10,
            flops_fraction=0.3 + n / 10, params_fraction=0.5, epochs=1.0, seconds=1.0,
            policy=policy, target=Target(flops=0.4), path=f"trials/{n}",
        )
        for n, policy in enumerate(policies)
    ]  # fmt: skip
    return [(point, POLICIES.params_of(point.policy)) for point in points]


def test_a_variation_keeps_most_of_its_parents_choices(blind):
    slot = make_plan(1, Target(flops=0.4), blind.space)[0]
    parents = finished_trials([POLICY_PRESETS["taylor-by-price"]] * MIN_FINISHED_TRIALS)
    assert propose_mutation(slot, parents[:-1], POLICIES, blind, np.random.default_rng(0)) is None
    found = [
        propose_mutation(slot, parents, POLICIES, blind, np.random.default_rng(n))
        for n in range(40)
    ]
    assert {one.origin for one in found} == {"refined:1", "refined:2"}  # the nearest in size
    assert any(one.policy != POLICY_PRESETS["taylor-by-price"] for one in found)
    known = parents[0][1]
    kept = [one.params.get(name) == value for one in found for name, value in known.items()]
    assert 0.6 < np.mean(kept) < 0.95
    for one in found:
        assert POLICIES.params_of(one.policy) == one.params


def test_who_saves_next_to_nothing_is_no_parent():
    (best, params), *others = reversed(finished_trials([POLICY_PRESETS["taylor-by-price"]] * 4))
    near = replace(best, trial=9, accuracy=best.accuracy - 0.01, flops_fraction=0.599)
    points = sorted((e for e, _ in [(best, params), *others]), key=lambda e: e.flops_fraction)
    found = [points[-1], near, *points[:-1]]
    assert thin_front(found, "flops_fraction") == list(reversed(points))


def test_parents_of_a_target_in_params_are_on_the_front_of_params(blind):
    """The best at the target is one, whatever its FLOPs."""
    policies = [POLICY_PRESETS["taylor-by-price"]] * 4
    (first, params), *others = finished_trials(policies)
    small = replace(first, trial=7, accuracy=0.99, params_fraction=0.3, flops_fraction=0.9)
    rest = [(replace(e, accuracy=0.5, params_fraction=0.6), p) for e, p in others]
    slot = PlannedTrial(0, Target(params=0.3))
    found = [
        propose_mutation(slot, [(small, params), *rest], POLICIES, blind, np.random.default_rng(n))
        for n in range(8)
    ]
    assert "refined:7" in {one.origin for one in found}


def test_varied_answers_stay_within_their_ranges():
    rng = np.random.default_rng(0)
    for _ in range(200):
        varied = MutatingSuggester({"a": 0.99, "b": 3, "c": "x", "rate": 0.09}, rng)
        assert 0 <= varied.suggest_float("a", 0.0, 1.0) <= 1
        assert 0.005 <= varied.suggest_float("rate", 0.005, 0.1, log=True) <= 0.1
        assert 1 <= varied.suggest_int("b", 1, 2) <= 2
        assert varied.suggest_categorical("c", ("y", "z")) in ("y", "z")


def test_the_ledger_tries_variations_of_what_is_finished(tmp_path):
    def vary(slot, draw, finished):
        if slot.index < 3 or not finished:
            return None
        rng = np.random.default_rng([slot.index, draw])
        varied = MutatingSuggester(finished[0][1], rng)
        return Proposal(LEDGER_SPACE.sample(varied), "refined:0", params=varied.params)

    ledger = open_ledger(tmp_path / "journal.log", slots=6, vary=vary)
    jobs = [job for job in run_to_the_end(ledger) if not job.control]
    assert [job.origin for job in jobs] == ["sampled"] * 3 + ["refined:0"] * 3
    for trial in ledger.records.trials("search", TrialState.COMPLETE)[3:]:
        assert trial.params == LEDGER_SPACE.params_of(jobs[trial.number].policy)


def test_a_search_says_where_its_front_came_from(tmp_path):
    opening = {1: Proposal(Policy("l2"), "screened")}
    ledger = open_ledger(tmp_path / "journal.log", opening=opening)
    run_to_the_end(ledger)
    front = ledger.front()
    line = describe_screening(ledger.records, front)
    assert line.startswith("the front's points came from ")
    for origin, name in (("screened", "screening"), ("sampled", "the sampler")):
        count = sum(point.origin == origin for point in front.points)
        assert (f"{name} {count}" in line) == (count > 0)
    assert line.endswith("finished trials that were foretold: 0, too few to correlate")
    blind = open_ledger(tmp_path / "blind.log")
    run_to_the_end(blind)
    assert describe_screening(blind.records, blind.front()) == ""


def test_what_a_size_explains_is_no_foresight(tmp_path):
    """Foretold and fine-tuned both rise with the size, and within a size one against the other."""
    signs = {0: 1, 1: -1}
    for way, sign in signs.items():
        ledger = open_ledger(tmp_path / f"{way}.log", slots=20)
        rng = np.random.default_rng(way)
        while job := ledger.next_trial():
            flops, apart = float(job.target.flops), float(rng.random())
            found = replace(measured(job), accuracy=flops + apart / 100, flops_fraction=flops)
            ledger.finish(job, replace(found, predicted=-flops - sign * apart / 100), {})
        correlation, count = screening_correlation(ledger.records)
        assert count == 20
        assert correlation * sign > 0.6
