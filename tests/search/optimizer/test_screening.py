"""Untrained losses, their prediction, screening by them, and mutations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from torch.nn import functional
from trial_stores import SPACE as STORE_SPACE
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
from paretoprune.search.optimizer.plan import PlannedTrial, make_plan
from paretoprune.search.optimizer.screening import (
    EVALUATED_PER_GENERATION,
    INITIAL_EVALUATIONS,
    PolicyPredictor,
    Proposal,
    screen_policies,
)
from paretoprune.search.optimizer.search_space import build_policy_space
from paretoprune.search.optimizer.suggesters import MutatingSuggester
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
from paretoprune.trainers.data.splits import normalize_images
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
    channel_map, folder = (
        trace_channel_map(model, data.input_shape),
        tmp_path_factory.mktemp("kept"),
    )
    return MeasurementContext(model.eval(), channel_map, data, 0, folder)


@pytest.fixture(scope="module")
def unfitted(measuring):
    measurements = measure_for_policies(
        POLICIES.policies_to_measure,
        replace(measuring, limits=MeasurementLimits(curve_images=256)),
    )
    return PolicyPredictor(
        PruningSpace(measuring.channel_map, CostModel(measuring.channel_map)), measurements
    )


def random_masks(channel_map, count, seed=0):
    masks = np.random.default_rng(seed).random((count, channel_map.atoms)) < 0.7
    for group in range(int(channel_map.group_of.max()) + 1):
        masks[:, np.flatnonzero(channel_map.group_of == group)[0]] = True
    return masks


def test_the_untrained_loss_is_that_of_the_masked_network_on_batch_statistics(measuring):
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


def test_the_untrained_loss_is_that_at_the_best_temperature():
    torch.manual_seed(0)
    logits, labels = torch.randn(400, 10), torch.randint(10, (400,))
    logits[torch.arange(400), labels] += 1.5
    factors = torch.linspace(0, 2, 2001)
    best = min(float(functional.cross_entropy(logits * factor, labels)) for factor in factors)
    assert best <= best_temperature_loss(logits, labels) + 1e-6 < best + 0.004
    assert best_temperature_loss(logits * 20, labels) == pytest.approx(
        best, abs=0.004
    )  # the scale does not matter
    assert best_temperature_loss(logits.roll(1, 0), labels) <= np.log(10) + 1e-6  # wrong logits
    assert best_temperature_loss(torch.zeros(400, 10), labels) == pytest.approx(np.log(10))
    assert np.isnan(best_temperature_loss(logits * np.inf, labels))


def test_untrained_losses_are_cached_and_do_not_depend_on_how_masks_are_split(measuring, tmp_path):
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


def test_removed_weights_by_group_predict_the_losses_of_unseen_masks(measuring):
    rng, channel_map = np.random.default_rng(1), measuring.channel_map
    weights = rng.random(channel_map.atoms)
    keep = rng.random((260, int(channel_map.group_of.max()) + 1))  # each group its own share
    masks = rng.random((260, channel_map.atoms)) < keep[:, channel_map.group_of]
    losses = (
        1
        / (
            1.1
            - removed_worth_by_group(
                masks, worth_shares(weights, channel_map), channel_map.group_of
            )
        )
    ).sum(1)
    known = fit_untrained_loss_predictor(masks[:130], losses[:130], weights, channel_map)
    assert spearman_correlation(known.predict(masks[130:]), losses[130:]) > 0.9


def worth_shares(weights, channel_map):
    return weights / np.bincount(channel_map.group_of, weights=weights)[channel_map.group_of]


def test_too_few_finite_losses_fit_no_predictor(measuring):
    masks = random_masks(measuring.channel_map, 30)
    weights = np.ones(measuring.channel_map.atoms)
    few = np.where(np.arange(30) < 5, 1.0, np.nan)
    assert fit_untrained_loss_predictor(masks, few, weights, measuring.channel_map) is None
    same = fit_untrained_loss_predictor(masks, np.ones(30), weights * 0, measuring.channel_map)
    assert np.isfinite(same.predict(masks)).all()


def test_every_screened_trial_gets_a_policy_that_ties_with_the_best(
    measuring, unfitted, monkeypatch
):
    monkeypatch.setattr(screening, "GENERATIONS", rounds := 2)
    plan = make_plan(6, Target(flops=0.5), unfitted.space)
    seen = []

    def evaluate(masks):
        seen.extend(mask.tobytes() for mask in masks)
        return evaluate_untrained(masks, measuring, ignore_progress)

    rng = np.random.default_rng(0)
    found, predictor = screen_policies(plan, POLICIES, unfitted, evaluate, rng=rng)
    targets = len({slot.target for slot in plan})
    assert (
        len(seen)
        == len(set(seen))
        <= 1 + INITIAL_EVALUATIONS + targets * (1 + EVALUATED_PER_GENERATION * (1 + rounds))
    )
    assert sorted(found) == [slot.index for slot in plan]
    masks = [
        decode_policy(found[s.index].policy, s.target, unfitted.measurements, unfitted.space)
        for s in plan
    ]
    assert len({mask.tobytes() for mask in masks}) == len(plan)
    first = {slot.target: slot for slot in reversed(plan)}  # later ones leave its choice alone
    for slot in first.values():
        one = found[slot.index]
        assert (one.origin, one.policy.schedule) == ("screened", "one-shot")
        preset = decode_policy(
            POLICY_PRESETS["taylor-by-price"], slot.target, unfitted.measurements, unfitted.space
        )
        assert one.predicted <= rise(preset, predictor, measuring) + 0.02 + 1e-9
    again, _ = screen_policies(plan, POLICIES, unfitted, evaluate, rng=np.random.default_rng(0))
    assert again == found
    seen.clear()
    shorter, _ = screen_policies(
        plan, POLICIES, unfitted, evaluate, rng=np.random.default_rng(0), is_late=lambda: True
    )
    assert len(seen) <= 1 + INITIAL_EVALUATIONS + targets * (1 + EVALUATED_PER_GENERATION)
    assert sorted(shorter) == sorted(found)


def test_screening_never_proposes_the_network_of_an_initial_trial(
    measuring, unfitted, monkeypatch
):
    monkeypatch.setattr(screening, "INITIAL_EVALUATIONS", 24)
    monkeypatch.setattr(screening, "GENERATIONS", 1)
    (slot,) = make_plan(1, Target(flops=0.5), unfitted.space)

    def screened(initial):
        found, _ = screen_policies(
            [slot],
            POLICIES,
            unfitted,
            lambda masks: evaluate_untrained(masks, measuring, ignore_progress),
            rng=np.random.default_rng(0),
            initial=initial,
        )
        return found[slot.index].policy

    initial = []
    for _ in range(4):  # the best, the next best, ...
        initial.append((screened(initial), slot.target))
    masks = [
        decode_policy(policy, target, unfitted.measurements, unfitted.space)
        for policy, target in initial
    ]
    assert len({mask.tobytes() for mask in masks}) == 4
    best = initial[0][0]
    gradual = replace(POLICY_PRESETS["taylor-by-price"], schedule="gradual", steps=2)
    assert screened([(gradual, slot.target)]) == best  # its mask is not known


def test_generations_of_mutations_never_worsen_the_best(measuring, unfitted, monkeypatch):
    (slot,) = make_plan(1, Target(flops=0.4), unfitted.space)

    def best(generations):
        monkeypatch.setattr(screening, "GENERATIONS", generations)
        found, _ = screen_policies(
            [slot],
            POLICIES,
            unfitted,
            lambda masks: evaluate_untrained(masks, measuring, ignore_progress),
            rng=np.random.default_rng(0),
        )
        return found[slot.index].predicted

    alone = best(0)
    assert best(6) <= alone


def rise(mask, predictor, measuring):
    return evaluate_untrained(mask[None], measuring, ignore_progress)[0] - predictor.dense_loss


def test_masks_without_a_finite_loss_are_not_proposed(unfitted):
    plan = make_plan(4, Target(flops=0.5), unfitted.space)
    screened = screen_policies(
        plan, POLICIES, unfitted, lambda masks: np.full(len(masks), np.nan),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert screened[0] == {}
    assert screened[1].loss_predictor is None


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


def test_a_mutation_keeps_most_of_its_parents_parameters(unfitted):
    slot = make_plan(1, Target(flops=0.4), unfitted.space)[0]
    parents = finished_trials([POLICY_PRESETS["taylor-by-price"]] * MIN_FINISHED_TRIALS)
    assert (
        propose_mutation(slot, parents[:-1], POLICIES, unfitted, np.random.default_rng(0)) is None
    )
    found = [
        propose_mutation(slot, parents, POLICIES, unfitted, np.random.default_rng(n))
        for n in range(40)
    ]
    assert {one.origin for one in found} == {"refined:1", "refined:2"}  # the nearest in size
    assert any(one.policy != POLICY_PRESETS["taylor-by-price"] for one in found)
    known = parents[0][1]
    kept = [one.params.get(name) == value for one in found for name, value in known.items()]
    assert 0.6 < np.mean(kept) < 0.95
    for one in found:
        assert POLICIES.params_of(one.policy) == one.params


def test_a_point_hardly_smaller_than_a_more_accurate_one_is_no_parent():
    (best, params), *others = reversed(finished_trials([POLICY_PRESETS["taylor-by-price"]] * 4))
    near = replace(best, trial=9, accuracy=best.accuracy - 0.01, flops_fraction=0.599)
    points = sorted((e for e, _ in [(best, params), *others]), key=lambda e: e.flops_fraction)
    found = [points[-1], near, *points[:-1]]
    assert thin_front(found, "flops_fraction") == list(reversed(points))


def test_parents_of_a_target_in_params_are_on_the_front_of_params(unfitted):
    """The best at the target is one, whatever its FLOPs."""
    policies = [POLICY_PRESETS["taylor-by-price"]] * 4
    (first, params), *others = finished_trials(policies)
    small = replace(first, trial=7, accuracy=0.99, params_fraction=0.3, flops_fraction=0.9)
    rest = [(replace(e, accuracy=0.5, params_fraction=0.6), p) for e, p in others]
    slot = PlannedTrial(0, Target(params=0.3))
    found = [
        propose_mutation(
            slot, [(small, params), *rest], POLICIES, unfitted, np.random.default_rng(n)
        )
        for n in range(8)
    ]
    assert "refined:7" in {one.origin for one in found}


def test_mutated_parameters_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    for _ in range(200):
        mutation = MutatingSuggester({"a": 0.99, "b": 3, "c": "x", "rate": 0.09}, rng)
        assert 0 <= mutation.suggest_float("a", 0.0, 1.0) <= 1
        assert 0.005 <= mutation.suggest_float("rate", 0.005, 0.1, log=True) <= 0.1
        assert 1 <= mutation.suggest_int("b", 1, 2) <= 2
        assert mutation.suggest_categorical("c", ("y", "z")) in ("y", "z")


def test_the_trial_store_starts_mutations_of_finished_trials(tmp_path):
    def vary(slot, draw, finished):
        if slot.index < 3 or not finished:
            return None
        rng = np.random.default_rng([slot.index, draw])
        mutation = MutatingSuggester(finished[0][1], rng)
        return Proposal(STORE_SPACE.sample(mutation), "refined:0", params=mutation.params)

    store = open_ledger(tmp_path / "journal.log", slots=6, vary=vary)
    specs = [spec for spec in run_to_the_end(store) if not spec.control]
    assert [spec.origin for spec in specs] == ["sampled"] * 3 + ["refined:0"] * 3
    for trial in store.records.trials("search", TrialState.COMPLETE)[3:]:
        assert trial.params == STORE_SPACE.params_of(specs[trial.number].policy)


def test_the_origins_of_the_front_are_described(tmp_path):
    initial = {1: Proposal(Policy("l2"), "screened")}
    store = open_ledger(tmp_path / "journal.log", initial=initial)
    run_to_the_end(store)
    front = store.front()
    line = describe_screening(store.records, front)
    assert line.startswith("the front's points came from ")
    for origin, name in (("screened", "screening"), ("sampled", "the sampler")):
        count = sum(point.origin == origin for point in front.points)
        assert (f"{name} {count}" in line) == (count > 0)
    assert line.endswith("finished trials that were predicted: 0, too few to correlate")
    unfitted = open_ledger(tmp_path / "unfitted.log")
    run_to_the_end(unfitted)
    assert describe_screening(unfitted.records, unfitted.front()) == ""


def test_a_correlation_that_the_size_explains_does_not_count(tmp_path):
    """Predicted and final losses correlate over sizes; within a size they correlate or oppose."""
    signs = {0: 1, 1: -1}
    for way, sign in signs.items():
        store = open_ledger(tmp_path / f"{way}.log", slots=20)
        rng = np.random.default_rng(way)
        while spec := store.next_trial():
            flops, apart = float(spec.target.flops), float(rng.random())
            found = replace(measured(spec), accuracy=flops + apart / 100, flops_fraction=flops)
            store.finish(spec, replace(found, predicted=-flops - sign * apart / 100), {})
        correlation, count = screening_correlation(store.records)
        assert count == 20
        assert correlation * sign > 0.6
