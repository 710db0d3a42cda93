"""Ensembles recover known coefficients, state their errors, and survive kills and failures."""

import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.ensembles.surrogate import Surrogate, build_surrogate
from paretoprune.analysis.mask_ensembles import (
    EnsembleSettings,
    add_ensemble,
    measure_ensemble,
    stages,
)
from paretoprune.analysis.mask_ensembles import estimator as estimator_module
from paretoprune.analysis.mask_ensembles import measure as measuring
from paretoprune.analysis.mask_ensembles.chunks import ChunkSampler, measure_part
from paretoprune.analysis.mask_ensembles.design_matrix import DesignMatrix
from paretoprune.analysis.mask_ensembles.estimator import new_estimator
from paretoprune.analysis.mask_ensembles.masked_loss import MaskedLossProbe
from paretoprune.analysis.mask_ensembles.masks import draw_masks
from paretoprune.analysis.mask_ensembles.normal_equations import empty_normal_equations
from paretoprune.analysis.mask_ensembles.posterior import build_priors, expected_scores
from paretoprune.analysis.mask_ensembles.ridge import Prior, fit_normal_equations
from paretoprune.analysis.mask_ensembles.ridge_cg import empty_packed_masks, fit_packed_masks
from paretoprune.analysis.mask_ensembles.settings import DEFAULT_SAMPLES, ENSEMBLE_PRESETS
from paretoprune.analysis.measure import (
    MeasurementContext,
    MeasurementLimits,
    measure_for_policies,
)
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.allocations.ordering import PolicyScorer
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.layer_scores import as_layer_scores
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.normalization import fractional_ranks
from paretoprune.spaces.policy.policy import POLICY_PRESETS, Policy
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits, Split, normalize_images
from paretoprune.trainers.pruning.masking import masked
from paretoprune.trainers.runtime.device import DeviceConfig

HIDDEN, IMAGES = 24, 256
FEW = EnsembleSettings(transform="plain", samples=2048, agreement=1.0)


def data_of(images, labels, classes):
    split = Split(images, labels)
    shape = tuple(images.shape[1:])
    return DataSplits("made", split, split, None, classes, (0.0,), (1.0,), shape)


@pytest.fixture(scope="module")
def additive():
    """A network whose loss is linear in its masks.

    The logit of the true class is far below the other, so the cross-entropy is their difference.
    """
    rng = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(8, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(HIDDEN, 8, generator=rng))
        model[2].weight.copy_(torch.randn(2, HIDDEN, generator=rng) * 0.3)
        model[2].bias.copy_(torch.tensor([0.0, 60.0]))
    images = torch.randn(IMAGES, 8, generator=rng)
    data = data_of(images, torch.zeros(IMAGES, dtype=torch.int64), 2)
    weight = (model[2].weight[0] - model[2].weight[1]).detach()
    truth = (torch.relu(model[0](images)) * weight).mean(0).detach().double().numpy()
    return model, trace_channel_map(model, (8,)), data, truth


@pytest.fixture(scope="module")
def trained():
    """A small network trained on digits."""
    data = load_data("digits")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    images = normalize_images(data.train.images, data)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        functional.cross_entropy(model(images), data.train.labels).backward()
        optimiser.step()
    return model.eval(), trace_channel_map(model, (1, 8, 8)), data


def estimator_of(scene, settings, seed=0):
    model, channel_map, data = scene[:3]
    probe = MaskedLossProbe(model, channel_map, data, data.train, settings, DeviceConfig())
    sampler = ChunkSampler(settings, channel_map.group_of, len(data.train), seed)
    estimator = new_estimator(sampler)
    estimator.taylor = probe.taylor()
    return estimator, lambda *chunks: estimator.add_results(measure_part(probe, sampler, chunks))


def measure(scene, settings, **options):
    options = {"folder": None, "seed": 0, "machine": DeviceConfig(), **options}
    return measure_ensemble(*scene[:3], settings, **options)


# --- known coefficients


@pytest.mark.parametrize("prior", ["none", "taylor"])
def test_true_coefficients_lie_within_the_stated_errors_as_often_as_stated(prior, additive):
    truth, inside = additive[3], []
    settings = replace(FEW, prior=prior, samples=16_384)
    for seed in range(200):
        estimator, take = estimator_of(additive, settings, seed)
        take(*range(5))
        score, errors = estimator.scores(estimator.fit())
        inside.append(np.abs(score - truth) <= 1.96 * errors)
    assert 0.90 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("per", ["sample", "batch", "gradient"])
def test_every_kind_of_ensemble_finds_the_true_coefficients(per, additive):
    settings = replace(FEW, per=per, samples=512 if per == "batch" else 4096, prior="none")
    found = measure(additive, settings)
    assert np.corrcoef(found.score, additive[3])[0, 1] > 0.98
    if per != "sample":  # without noise between images
        np.testing.assert_allclose(found.score, additive[3], rtol=0.05, atol=0.01)


def test_ranking_agrees_with_leave_one_out(trained):
    model, channel_map, data = trained
    images, labels = normalize_images(data.train.images, data), data.train.labels

    def loss(keep):
        with torch.no_grad(), masked(model, channel_map, keep):
            return functional.cross_entropy(model(images), labels, reduction="none").log1p().mean()

    whole_loss = loss(np.ones(channel_map.atoms, dtype=bool))
    alone = [float(loss(~row) - whole_loss) for row in np.eye(channel_map.atoms, dtype=bool)]
    settings = EnsembleSettings(keep=0.95, samples=16_384, images=len(labels), agreement=1.0)
    found = measure(trained, settings)
    assert (
        np.corrcoef(fractional_ranks(found.score), fractional_ranks(np.array(alone)))[0, 1] > 0.9
    )


def test_the_prior_helps_with_few_samples(additive):
    def error(prior):
        settings = replace(FEW, prior=prior, samples=2048)
        misses = []
        for seed in range(20):
            estimator, take = estimator_of(additive, settings, seed)
            estimator.taylor = np.abs(additive[3])  # the exact prior mean for linear losses
            take(0)
            misses.append(estimator.fit(errors=False).coefficients[:HIDDEN] - additive[3])
        return np.square(misses).mean()

    assert error("taylor") < error("none")


def test_marginal_likelihood_finds_the_noise_and_the_strength():
    rng = np.random.default_rng(0)
    group_of = np.zeros(60, dtype=np.int32)
    sums = empty_normal_equations(DesignMatrix(group_of))
    truth = 0.5 + 0.2 * rng.standard_normal(60)
    for _ in range(16):
        masks = draw_masks(128, group_of, keep=0.8, rng=rng)
        sums.add(masks, ~masks @ truth + 0.7 * rng.standard_normal(128))
    fit = fit_normal_equations(sums, [Prior(np.ones((60, 1)), np.ones(60))])
    assert fit.noise**0.5 == pytest.approx(0.7, rel=0.05)
    assert (fit.noise / fit.strength) ** 0.5 == pytest.approx(0.2, rel=0.3)
    assert fit.weights[0] == pytest.approx(0.5, abs=0.1)


def test_conjugate_gradients_give_the_same_model_as_the_matrix():
    rng = np.random.default_rng(0)
    group_of = np.repeat(np.arange(4, dtype=np.int32), 15)
    columns = DesignMatrix(group_of)
    sums, rows = empty_normal_equations(columns), empty_packed_masks(columns)
    truth = rng.random(60)
    for _ in range(20):
        masks = draw_masks(100, group_of, keep=0.9, rng=rng)
        targets = ~masks @ truth + rng.standard_normal(100)
        sums.add(masks, targets)
        rows.add(masks, targets)
    priors = [Prior(np.ones((60, 1)), np.ones(60))]
    dense, free = fit_normal_equations(sums, priors), fit_packed_masks(rows, priors)
    np.testing.assert_allclose(free.coefficients, dense.coefficients, atol=0.1)
    errors = [np.linalg.norm(fit.root, axis=1) for fit in (dense, free)]
    np.testing.assert_allclose(errors[1], errors[0], rtol=0.5)
    assert errors[1].mean() == pytest.approx(errors[0].mean(), rel=0.1)


def test_a_network_too_large_for_the_matrix_gets_similar_scores(trained, tmp_path, monkeypatch):
    settings = EnsembleSettings(samples=4096, agreement=1.0)
    dense = measure(trained, settings)
    monkeypatch.setattr(estimator_module, "LARGEST_GRAM", 1)
    half = measure(trained, replace(settings, samples=2048), folder=tmp_path)
    assert half.root.shape[1] == 64 + 2  # draws, and the uncertainty of the prior's two weights
    free = measure(trained, settings, folder=tmp_path)  # goes on from the saved masks
    assert free.effort.samples == 4096
    assert np.corrcoef(free.score, dense.score)[0, 1] > 0.99
    np.testing.assert_allclose(free.errors, dense.errors, rtol=0.6)


def test_marginal_likelihood_chooses_the_true_spread():
    rng = np.random.default_rng(0)
    group_of = np.zeros(80, dtype=np.int32)
    taylor = rng.exponential(size=80) ** 2
    for truth, chosen in (
        (rng.standard_normal(80) * taylor, 1),
        (rng.standard_normal(80), 0),
    ):
        sums = empty_normal_equations(DesignMatrix(group_of))
        for _ in range(8):
            masks = draw_masks(128, group_of, keep=0.9, rng=rng)
            sums.add(masks, ~masks @ truth + rng.standard_normal(128))
        priors = build_priors(taylor, [], 80)
        assert fit_normal_equations(sums, priors).prior is priors[chosen]


@pytest.mark.parametrize(
    ("variant", "function"), [("mean", np.asarray), ("absolute", np.abs), ("square", np.square)]
)
def test_scores_of_uncertain_coefficients_are_expectations(variant, function):
    mean, error = np.array([-2.0, 0.0, 0.3, 4.0]), np.array([1.0, 0.5, 2.0, 0.1])
    draws = function(mean + error * np.random.default_rng(0).standard_normal((400_000, 4)))
    score, spread = expected_scores(mean, error, variant)
    np.testing.assert_allclose(score, draws.mean(axis=0), rtol=0.02, atol=0.01)
    np.testing.assert_allclose(spread, draws.std(axis=0), rtol=0.02)


# --- masks


@pytest.mark.parametrize("how", ["bernoulli", "antithetic", "stratified"])
def test_masks_keep_their_share_and_an_atom_of_every_group(how):
    group_of = np.repeat(np.arange(5, dtype=np.int32), [1, 2, 7, 16, 30])
    rng = np.random.default_rng(0)
    masks = draw_masks(4000, group_of, keep=0.6, how=how, rng=rng)
    for group, size in enumerate([1, 2, 7, 16, 30]):
        kept = masks[:, group_of == group]
        assert kept.any(axis=1).all()
        if size > 2:
            assert kept.mean() == pytest.approx(0.6, abs=0.02)
        if how == "stratified":
            assert np.abs(kept.sum(axis=1) - 0.6 * size).max() < 1 + 1e-9
    if how == "antithetic":
        assert np.corrcoef(masks[0::2, 30], masks[1::2, 30])[0, 1] < -0.5


def test_spread_varies_the_share_from_mask_to_mask():
    group_of = np.zeros(400, dtype=np.int32)
    rng = np.random.default_rng(0)
    shares = draw_masks(500, group_of, keep=0.7, spread=0.2, rng=rng).mean(axis=1)
    assert shares.min() < 0.55
    assert shares.max() > 0.85


# --- kills and failures


class Killed(BaseException):
    """Stands for a kill of the process."""


@pytest.mark.parametrize("per", ["sample", "gradient"])
def test_a_killed_measurement_resumes_bit_for_bit(per, trained, tmp_path, monkeypatch):
    settings = EnsembleSettings(per=per, joined=per == "gradient", samples=4096, agreement=1.0)
    unbroken = measure(trained, settings)
    monkeypatch.setattr(measuring, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(measuring, "PART", 1)
    taken = []
    take = stages.measure_part

    def dying(probe, sampler, chunks):
        taken.extend(chunks)
        if len(taken) in (6, 18):
            raise Killed
        return take(probe, sampler, chunks)

    monkeypatch.setattr(stages, "measure_part", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            measure(trained, settings, folder=tmp_path)
    found = measure(trained, settings, folder=tmp_path)
    assert taken == [*range(6), *range(12), *range(8, 16)]  # checks are after 8, 12 and 16
    assert np.array_equal(found.score, unbroken.score)
    assert np.array_equal(found.root, unbroken.root)
    assert found.checks == unbroken.checks


def test_a_finished_ensemble_is_read_and_a_higher_limit_resumes(trained, tmp_path, monkeypatch):
    settings = EnsembleSettings(samples=2048, agreement=1.0)
    first = measure(trained, settings, folder=tmp_path)
    seen = []
    monkeypatch.setattr(
        MaskedLossProbe,
        "sample_changes",
        spy(MaskedLossProbe.sample_changes, lambda masks, rows: seen.append(rows)),
    )
    again = measure(trained, settings, folder=tmp_path)
    assert not seen
    assert asdict(again.settings) == asdict(first.settings)
    assert np.array_equal(again.score, first.score)
    more = measure(trained, replace(settings, samples=3072), folder=tmp_path)
    assert len(seen) == 4
    assert np.array_equal(more.score, measure(trained, replace(settings, samples=3072)).score)


def spy(function, look):
    def spying(self, *arguments):
        look(*arguments)
        return function(self, *arguments)

    return spying


def test_images_without_a_finite_loss_are_left_out_and_counted(additive):
    model, channel_map, data, truth = additive
    images = data.train.images.clone()
    images[:3] = torch.nan
    broken = data_of(images, data.train.labels, 2)
    settings = replace(FEW, samples=4096)
    found = measure((model, channel_map, broken), settings)
    assert found.effort.dropped == 3 * 4096 // IMAGES
    assert any("48 of 4096" in note for note in found.notes)
    assert np.corrcoef(found.score, truth)[0, 1] > 0.95
    images[:] = torch.nan
    with pytest.raises(UserError, match="got none of"):
        measure((model, channel_map, data_of(images, data.train.labels, 2)), settings)


class Hungry(nn.Sequential):
    """Runs out of memory with more than 50 images."""

    def forward(self, x):
        if len(x) > 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


@pytest.mark.parametrize("per", ["sample", "gradient", "batch"])
def test_a_batch_that_does_not_fit_is_halved(per, additive):
    model, *rest = additive
    settings = replace(FEW, per=per, samples=256)
    found, usual = measure((Hungry(*model), *rest), settings), measure(additive, settings)
    assert found.effort.halvings == 3
    assert any("memory ran out" in note for note in found.notes)
    np.testing.assert_allclose(found.score, usual.score, rtol=1e-3, atol=1e-5)


class Regrouping(nn.Module):
    """Treats both halves of an image as separate images, as window attention does."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        parts = self.last(torch.relu(self.first(x.reshape(-1, 4))))
        return parts.reshape(len(x), 2, 2).sum(1)


@pytest.mark.parametrize("per", ["sample", "gradient"])
def test_a_network_that_regroups_its_batch_gets_one_mask_per_set(per, additive):
    model, data = Regrouping().eval(), additive[2]
    found = measure(
        (model, trace_channel_map(model, (8,)), data), replace(FEW, per=per, samples=64)
    )
    assert found.settings.per == "batch"
    assert any("regroups its batch" in note for note in found.notes)
    assert np.isfinite(found.score).all()


def test_fewer_images_than_a_batch_are_enough(additive):
    model, channel_map, data, _ = additive
    few = data_of(data.train.images[:5], data.train.labels[:5], 2)
    found = measure((model, channel_map, few), replace(FEW, samples=1024))
    assert found.effort.samples == 1024
    assert np.isfinite(found.errors).all()


def test_a_network_with_nothing_to_remove_raises_a_user_error(additive):
    model = nn.Sequential(nn.Linear(8, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    with pytest.raises(UserError, match="a group of at least two atoms, got"):
        measure((model, trace_channel_map(model, (8,)), additive[2]), FEW)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": 1.0}, "keep must be in"),
        ({"per": "image"}, "per must be one of"),
        ({"measure": "accuracy"}, "must come with per='batch'"),
        ({"joined": True}, "must come with per='gradient'"),
        ({"keep": 0.9, "spread": 0.2}, "spread must be in"),
        ({"samples": 3}, "samples must be in"),
    ],
)
def test_invalid_settings_raise_a_user_error(values, message):
    with pytest.raises(UserError, match=message):
        EnsembleSettings(**values)


# --- convergence, limits, norms, scores


def test_sampling_stops_when_the_ranking_has_converged(additive):
    seen = []
    settings = replace(FEW, samples=65_536, agreement=0.9)
    found = measure(additive, settings, on_progress=seen.append)
    assert found.settled
    assert found.effort.samples < 65_536
    assert [c.agreement >= 0.9 for c in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1].held_out_r2 > 0.1
    assert not measure(additive, replace(settings, samples=2048, agreement=1.0)).settled
    late = measure(additive, replace(settings, agreement=1.0, seconds=0.0))
    assert late.effort.samples < 1000


def test_limits_apply_to_every_ensemble():
    preset, batch = ENSEMBLE_PRESETS["ensemble"], ENSEMBLE_PRESETS["ensemble-batch"]
    assert MeasurementLimits(images=4096).apply_to(preset).max_samples == 4096
    assert MeasurementLimits(images=4096, samples=100).apply_to(preset).max_samples == 100
    assert MeasurementLimits(samples=100_000).apply_to(preset).max_samples == 100_000
    limited = MeasurementLimits(images=4096, samples=100).apply_to(batch)
    assert (limited.images, limited.max_samples) == (64, 100)


def test_the_time_limit_ends_an_ensemble_with_valid_scores(trained):
    model, channel_map, data = trained
    quick = MeasurementContext(model, channel_map, data, 0, limits=MeasurementLimits(seconds=1e-3))
    found = measure_for_policies([Policy("ensemble")], quick)
    assert 0 < found.counts["masks"] < DEFAULT_SAMPLES["sample"]
    assert np.isfinite(found.errors["ensemble"]).all()


def test_batch_statistics_do_not_change_the_network(additive):
    model = nn.Sequential(
        nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2), nn.BatchNorm1d(2)
    ).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scene = (model, trace_channel_map(model, (8,)), additive[2])
    settings = replace(FEW, samples=512)
    running = measure(scene, settings)
    batch = measure(scene, replace(settings, norms="batch"))
    assert not np.allclose(running.score, batch.score)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(module.training for module in model.modules())


def test_an_ensemble_becomes_scores_with_errors_and_decodes(trained):
    channel_map = trained[1]
    found = measure(trained, EnsembleSettings(per="batch", samples=128, images=64))
    measurements = add_ensemble(Measurements("k", {}), "ensemble-batch", found)
    space = PruningSpace(channel_map, CostModel(channel_map))
    keep = decode_policy(POLICY_PRESETS["linear-ensembles"], Target(0.5), measurements, space)
    assert 0 < keep.sum() < channel_map.atoms
    assert found.score[keep].min() >= found.score[~keep].max()


def test_caution_subtracts_standard_errors_if_they_are_known(trained):
    space = PruningSpace(trained[1], CostModel(trained[1]))
    scores, errors = np.linspace(0, 1, 16), np.linspace(1, 0, 16)
    measurements = Measurements(
        "k", {"a": as_layer_scores(scores), "b": as_layer_scores(scores)}, {"a": errors}
    )
    ordering = PolicyScorer(measurements, space.channel_map, space.cost_model)
    found = ordering.scores([Policy("a", caution=2.0), Policy("a")])
    np.testing.assert_allclose(found, [scores - 2 * errors, scores])
    with pytest.raises(UserError, match=r"caution must be 0 .* got 2.0 with 'b'; .* errors: a"):
        ordering.scores([Policy("b", caution=2.0)])
    with pytest.raises(UserError, match="caution must be in"):
        Policy("a", caution=-1.0)


# --- the surrogate


def test_the_surrogate_predicts_the_loss_of_an_additive_network(additive):
    channel_map, truth = additive[1], additive[3]
    found = measure(additive, replace(FEW, samples=8192))
    surrogate = build_surrogate(found, channel_map)
    masks = draw_masks(500, channel_map.group_of, keep=0.85, rng=np.random.default_rng(1))
    mean, error = surrogate.predict(masks)
    np.testing.assert_allclose(surrogate.predict_mean(masks), mean, atol=1e-5)
    inside = np.abs(mean - ~masks @ truth) <= 1.96 * error
    assert inside.mean() > 0.85
    some = np.ones((2, channel_map.atoms), dtype=bool)
    some[1, 1:] = False
    assert surrogate.extrapolates(some).tolist() == [False, True]


@pytest.mark.slow
def test_the_surrogate_predicts_ten_thousand_masks_a_second():
    rng, atoms, groups = np.random.default_rng(0), 1120, 30
    group_of = np.sort(rng.integers(0, groups, atoms)).astype(np.int32)
    root = rng.standard_normal((atoms, atoms + 2)).astype(np.float32)
    reach = np.ones(groups + 1)
    vector = np.zeros(atoms, dtype=np.float32)
    surrogate = Surrogate(DesignMatrix(group_of), vector, 0.0, 0.1, vector, root, reach)
    masks = draw_masks(20_000, group_of, keep=0.6, rng=rng)
    for predict, rate in ((surrogate.predict_mean, 100_000), (surrogate.predict, 10_000)):
        predict(masks[:1024])
        start = time.process_time()
        predict(masks)
        assert len(masks) / (time.process_time() - start) > rate / 2  # on a busy machine


def test_the_linear_model_holds_within_the_measured_range(trained):
    model, channel_map, data = trained
    found = measure(trained, EnsembleSettings(keep=0.9, samples=32_768, agreement=1.0))
    surrogate, rng = build_surrogate(found, channel_map), np.random.default_rng(0)
    images, labels = normalize_images(data.train.images, data), data.train.labels

    def loss(mask):
        with torch.no_grad(), masked(model, channel_map, mask):
            losses = functional.cross_entropy(model(images), labels, reduction="none")
        return float(losses.log1p().mean())

    for share, least, most in (
        (0.05, 0.9, 1.0),
        (0.1, 0.9, 1.0),
        (0.2, 0.8, 1.0),
        (0.4, 0.7, 1.0),
        (0.6, 0.0, 0.8),  # the loss saturates here, which a linear model cannot express
    ):
        masks = draw_masks(60, channel_map.group_of, keep=1 - share, rng=rng)
        rises = [loss(mask) for mask in masks]
        correlation = np.corrcoef(rises, surrogate.predict_mean(masks))[0, 1]
        assert least < correlation <= most, share
        beyond = surrogate.extrapolates(masks).mean()
        assert beyond > 0.5 if share == 0.6 else beyond < 0.3, share


def test_curvature_improves_the_fit_of_nonlinear_losses(trained):
    settings = EnsembleSettings(keep=0.7, spread=0.25, samples=8192, agreement=1.0, prior="none")
    straight, bent = (measure(trained, replace(settings, curvature=c)) for c in (False, True))
    assert bent.checks[-1].held_out_r2 > straight.checks[-1].held_out_r2
