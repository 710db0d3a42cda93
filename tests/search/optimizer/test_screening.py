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

from paretoprune.analysis.mask_ensembles.masked_loss import batch_statistics
from paretoprune.analysis.mask_ensembles.posterior import rank_correlation
from paretoprune.analysis.measure import Limits, Measuring, gather_evidence, tell_nobody
from paretoprune.analysis.untrained_loss import foretelling, lost, rehearse, tempered
from paretoprune.search.optimizer import screening
from paretoprune.search.optimizer.mutation import LEAST, refine, thinned
from paretoprune.search.optimizer.screening import FEW, FIRST, Proposal, Screen, screen
from paretoprune.search.optimizer.search_space import space_from
from paretoprune.search.optimizer.suggesters import Varied
from paretoprune.search.optimizer.target_plan import Slot, make_plan
from paretoprune.search.results.screening_quality import agreement, told_of_screening
from paretoprune.spaces.allocations.decode import Space, decode
from paretoprune.spaces.cost.cost import Price
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.trace import trace_channels
from paretoprune.spaces.graph.working_copy import working_copy
from paretoprune.spaces.policy.policy import PRESETS, Policy
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.trainers.data.batches import draw
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.types import prepare
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.pruning.masking import masked
from paretoprune.trainers.runtime.modes import evaluating

POLICIES = space_from(
    ("taylor", "l2", "mean-abs-weight"), ("global-threshold", "loss-budget"), (), stages=3
)


@pytest.fixture(scope="module")
def measuring():
    data = load_data("digits")
    model, _ = working_copy(
        build_model("digits-resnet", classes=10, input_shape=data.input_shape, seed=0)
    )
    return Measuring(model.eval(), trace_channels(model, data.input_shape), data, 0)


@pytest.fixture(scope="module")
def blind(measuring):
    evidence = gather_evidence(POLICIES.read, replace(measuring, limits=Limits(curve_images=256)))
    return Screen(Space(measuring.channel_map, Price(measuring.channel_map)), evidence)


def random_masks(channel_map, count, seed=0):
    masks = np.random.default_rng(seed).random((count, channel_map.atoms)) < 0.7
    for group in range(int(channel_map.group_of.max()) + 1):
        masks[:, np.flatnonzero(channel_map.group_of == group)[0]] = True
    return masks


def test_a_rehearsal_is_the_loss_of_the_masked_network_on_its_batches_statistics(measuring):
    masks = random_masks(measuring.channel_map, 3)
    split = draw(measuring.data.train, 512)
    for mask, loss in zip(masks, rehearse(masks, measuring, tell_nobody), strict=True):
        found = []
        for rows in (slice(0, 256), slice(256, 512)):
            images = prepare(split.images[rows], measuring.data)
            gates = torch.from_numpy(mask)
            model = measuring.model
            with (
                torch.no_grad(),
                evaluating(model),
                batch_statistics(model),
                masked(model, measuring.channel_map, gates),
            ):
                found.append(model(images))
        assert loss == pytest.approx(tempered(torch.cat(found), split.labels[:512]), abs=1e-4)


def test_the_loss_of_a_rehearsal_is_that_at_the_best_temperature():
    torch.manual_seed(0)
    logits, labels = torch.randn(400, 10), torch.randint(10, (400,))
    logits[torch.arange(400), labels] += 1.5
    factors = torch.linspace(0, 2, 2001)
    best = min(float(functional.cross_entropy(logits * factor, labels)) for factor in factors)
    assert best <= tempered(logits, labels) + 1e-6 < best + 0.004
    assert tempered(logits * 20, labels) == pytest.approx(best, abs=0.004)  # the scale is nothing
    assert tempered(logits.roll(1, 0), labels) <= np.log(10) + 1e-6  # who tells nothing apart
    assert tempered(torch.zeros(400, 10), labels) == pytest.approx(np.log(10))
    assert np.isnan(tempered(logits * np.inf, labels))


def test_rehearsed_masks_are_read_again_and_their_parts_do_not_matter(measuring, tmp_path):
    masks, on = random_masks(measuring.channel_map, 4), replace(measuring, folder=tmp_path)
    whole = rehearse(masks, on, tell_nobody)
    (file,) = tmp_path.glob("*.npz")
    before = file.stat().st_mtime_ns
    assert np.array_equal(rehearse(masks, on, tell_nobody), whole)
    assert file.stat().st_mtime_ns == before
    parts = [rehearse(masks[rows], measuring, tell_nobody) for rows in ([0, 1], [2, 3])]
    assert np.array_equal(np.concatenate(parts), whole)


def test_what_groups_lose_foretells_masks_that_were_not_seen(measuring):
    rng, channel_map = np.random.default_rng(1), measuring.channel_map
    worth = rng.random(channel_map.atoms)
    keep = rng.random((260, int(channel_map.group_of.max()) + 1))  # each group its own share
    masks = rng.random((260, channel_map.atoms)) < keep[:, channel_map.group_of]
    losses = (1 / (1.1 - lost(masks, worth_shares(worth, channel_map), channel_map.group_of))).sum(
        1
    )
    known = foretelling(masks[:130], losses[:130], worth, channel_map)
    assert rank_correlation(known.means(masks[130:]), losses[130:]) > 0.9


def worth_shares(worth, channel_map):
    return worth / np.bincount(channel_map.group_of, weights=worth)[channel_map.group_of]


def test_nothing_is_foretold_from_a_handful_or_from_no_numbers(measuring):
    masks = random_masks(measuring.channel_map, 30)
    worth = np.ones(measuring.channel_map.atoms)
    few = np.where(np.arange(30) < 5, 1.0, np.nan)
    assert foretelling(masks, few, worth, measuring.channel_map) is None
    same = foretelling(masks, np.ones(30), worth * 0, measuring.channel_map)
    assert np.isfinite(same.means(masks)).all()


def test_every_screened_slot_gets_its_best_or_one_that_is_level_with_it(
    measuring, blind, monkeypatch
):
    monkeypatch.setattr(screening, "GENERATIONS", rounds := 2)
    plan = make_plan(6, Target(flops=0.5), blind.space)
    seen = []

    def rehearsed(masks):
        seen.extend(mask.tobytes() for mask in masks)
        return rehearse(masks, measuring, tell_nobody)

    rng = np.random.default_rng(0)
    found, seeing = screen(plan, POLICIES, blind, rehearsed, rng=rng)
    targets = len({slot.target for slot in plan})
    assert len(seen) == len(set(seen)) <= 1 + FIRST + targets * (1 + FEW * (1 + rounds))
    assert sorted(found) == [slot.index for slot in plan]
    masks = [decode(found[s.index].policy, s.target, blind.evidence, blind.space) for s in plan]
    assert len({mask.tobytes() for mask in masks}) == len(plan)
    first = {slot.target: slot for slot in reversed(plan)}  # later ones leave its choice alone
    for slot in first.values():
        one = found[slot.index]
        assert (one.origin, one.policy.schedule) == ("screened", "one-shot")
        preset = decode(PRESETS["taylor-by-price"], slot.target, blind.evidence, blind.space)
        assert one.predicted <= rise(preset, seeing, measuring) + 0.02 + 1e-9
    again, _ = screen(plan, POLICIES, blind, rehearsed, rng=np.random.default_rng(0))
    assert again == found
    seen.clear()
    hasty, _ = screen(
        plan, POLICIES, blind, rehearsed, rng=np.random.default_rng(0), late=lambda: True
    )
    assert len(seen) <= 1 + FIRST + targets * (1 + FEW)
    assert sorted(hasty) == sorted(found)


def test_what_is_tried_in_any_case_is_not_screened(measuring, blind, monkeypatch):
    monkeypatch.setattr(screening, "FIRST", 24)
    monkeypatch.setattr(screening, "GENERATIONS", 1)
    (slot,) = make_plan(1, Target(flops=0.5), blind.space)

    def screened(opening):
        found, _ = screen(
            [slot], POLICIES, blind, lambda masks: rehearse(masks, measuring, tell_nobody),
            rng=np.random.default_rng(0), opening=opening,
        )  # fmt: skip
        return found[slot.index].policy

    opening = []
    for _ in range(4):  # the best, the next best, ...
        opening.append((screened(opening), slot.target))
    masks = [decode(policy, target, blind.evidence, blind.space) for policy, target in opening]
    assert len({mask.tobytes() for mask in masks}) == 4
    best = opening[0][0]
    gradual = replace(PRESETS["taylor-by-price"], schedule="gradual", steps=2)
    assert screened([(gradual, slot.target)]) == best  # nobody knows its mask


def test_variations_of_the_best_are_at_least_as_good(measuring, blind, monkeypatch):
    (slot,) = make_plan(1, Target(flops=0.4), blind.space)

    def best(generations):
        monkeypatch.setattr(screening, "GENERATIONS", generations)
        found, _ = screen(
            [slot], POLICIES, blind, lambda masks: rehearse(masks, measuring, tell_nobody),
            rng=np.random.default_rng(0),
        )  # fmt: skip
        return found[slot.index].predicted

    alone = best(0)
    assert best(6) <= alone


def rise(mask, seeing, measuring):
    return rehearse(mask[None], measuring, tell_nobody)[0] - seeing.dense_loss


def test_masks_without_a_finite_loss_are_not_proposed(blind):
    plan = make_plan(4, Target(flops=0.5), blind.space)
    nowhere = screen(
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
    parents = finished_trials([PRESETS["taylor-by-price"]] * LEAST)
    assert refine(slot, parents[:-1], POLICIES, blind, np.random.default_rng(0)) is None
    found = [refine(slot, parents, POLICIES, blind, np.random.default_rng(n)) for n in range(40)]
    assert {one.origin for one in found} == {"refined:1", "refined:2"}  # the nearest in size
    assert any(one.policy != PRESETS["taylor-by-price"] for one in found)
    known = parents[0][1]
    kept = [one.params.get(name) == value for one in found for name, value in known.items()]
    assert 0.6 < np.mean(kept) < 0.95
    for one in found:
        assert POLICIES.params_of(one.policy) == one.params


def test_who_saves_next_to_nothing_is_no_parent():
    (best, params), *others = reversed(finished_trials([PRESETS["taylor-by-price"]] * 4))
    near = replace(best, trial=9, accuracy=best.accuracy - 0.01, flops_fraction=0.599)
    points = sorted((e for e, _ in [(best, params), *others]), key=lambda e: e.flops_fraction)
    found = [points[-1], near, *points[:-1]]
    assert thinned(found, "flops_fraction") == list(reversed(points))


def test_parents_of_a_target_in_params_are_on_the_front_of_params(blind):
    """The best at the target is one, whatever its FLOPs."""
    policies = [PRESETS["taylor-by-price"]] * 4
    (first, params), *others = finished_trials(policies)
    small = replace(first, trial=7, accuracy=0.99, params_fraction=0.3, flops_fraction=0.9)
    rest = [(replace(e, accuracy=0.5, params_fraction=0.6), p) for e, p in others]
    slot = Slot(0, Target(params=0.3))
    found = [
        refine(slot, [(small, params), *rest], POLICIES, blind, np.random.default_rng(n))
        for n in range(8)
    ]
    assert "refined:7" in {one.origin for one in found}


def test_varied_answers_stay_within_their_ranges():
    rng = np.random.default_rng(0)
    for _ in range(200):
        varied = Varied({"a": 0.99, "b": 3, "c": "x", "rate": 0.09}, rng)
        assert 0 <= varied.suggest_float("a", 0.0, 1.0) <= 1
        assert 0.005 <= varied.suggest_float("rate", 0.005, 0.1, log=True) <= 0.1
        assert 1 <= varied.suggest_int("b", 1, 2) <= 2
        assert varied.suggest_categorical("c", ("y", "z")) in ("y", "z")


def test_the_ledger_tries_variations_of_what_is_finished(tmp_path):
    def vary(slot, draw, finished):
        if slot.index < 3 or not finished:
            return None
        rng = np.random.default_rng([slot.index, draw])
        varied = Varied(finished[0][1], rng)
        return Proposal(LEDGER_SPACE.sample(varied), "refined:0", params=varied.answers)

    ledger = open_ledger(tmp_path / "journal.log", slots=6, vary=vary)
    jobs = [job for job in run_to_the_end(ledger) if not job.control]
    assert [job.origin for job in jobs] == ["sampled"] * 3 + ["refined:0"] * 3
    for trial in ledger.record.trials("search", TrialState.COMPLETE)[3:]:
        assert trial.params == LEDGER_SPACE.params_of(jobs[trial.number].policy)


def test_a_search_says_where_its_front_came_from(tmp_path):
    opening = {1: Proposal(Policy("l2"), "screened")}
    ledger = open_ledger(tmp_path / "journal.log", opening=opening)
    run_to_the_end(ledger)
    front = ledger.front()
    line = told_of_screening(ledger.record, front)
    assert line.startswith("the front's points came from ")
    for origin, name in (("screened", "screening"), ("sampled", "the sampler")):
        count = sum(point.origin == origin for point in front.points)
        assert (f"{name} {count}" in line) == (count > 0)
    assert line.endswith("finished trials that were foretold: 0, too few to correlate")
    blind = open_ledger(tmp_path / "blind.log")
    run_to_the_end(blind)
    assert told_of_screening(blind.record, blind.front()) == ""


def test_what_a_size_explains_is_no_foresight(tmp_path):
    """Foretold and fine-tuned both rise with the size, and within a size one against the other."""
    signs = {0: 1, 1: -1}
    for way, sign in signs.items():
        ledger = open_ledger(tmp_path / f"{way}.log", slots=20)
        rng = np.random.default_rng(way)
        while job := ledger.next_job():
            flops, apart = float(job.target.flops), float(rng.random())
            found = replace(measured(job), accuracy=flops + apart / 100, flops_fraction=flops)
            ledger.finish(job, replace(found, predicted=-flops - sign * apart / 100), {})
        correlation, count = agreement(ledger.record)
        assert count == 20
        assert correlation * sign > 0.6
