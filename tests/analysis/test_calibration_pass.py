"""One pass computes all batch scores; cached scores are not measured again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_networks import IMAGES, OF_DATA, OF_WEIGHTS, Residual, network_of, plain, run_all
from torch import nn

import paretoprune as pp
from paretoprune.analysis.scores import all_scores, registry
from paretoprune.analysis.scores.calibration_pass import batch_size_for
from paretoprune.analysis.scores.measure import load_or_measure_scores
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.policy.layer_scores import LayerScores


def count_runs(model):
    """Count forwards, and backwards through the logits, of a model."""
    runs = {"forwards": 0, "backwards": 0}

    def bump(what):
        runs[what] += 1

    def hook(module, args, logits):
        bump("forwards")
        if logits.requires_grad:
            logits.register_hook(lambda _: bump("backwards"))

    model.register_forward_hook(hook)
    return runs


@pytest.mark.parametrize(
    ("names", "forwards", "backwards"),
    [(None, 2, 2), (("taylor",), 2, 2), (("weight-gradient",), 2, 2),
     (("activation-mean", "activation-zeros"), 2, 0), (OF_WEIGHTS, 0, 0)],
)  # fmt: skip
def test_a_batch_costs_one_forward_and_at_most_one_backward(names, forwards, backwards):
    network = network_of(plain())
    runs = count_runs(network.model)
    _, counts = run_all(network, names)
    assert runs == {"forwards": forwards, "backwards": backwards}
    assert counts == {**runs, "images": IMAGES if forwards else 0}


def test_the_shared_pass_equals_a_pass_for_each_score():
    network = network_of(Residual())
    together, _ = run_all(network)
    for name in all_scores():
        alone, _ = run_all(network, (name,))
        np.testing.assert_allclose(alone[name].value, together[name].value, rtol=1e-6)


def test_the_network_is_restored_and_frozen_weights_are_scored():
    network = network_of(plain())
    expected, _ = run_all(network)
    state = {k: v.clone() for k, v in network.model.state_dict().items()}
    network.model.requires_grad_(False)
    network.model.train()
    network.model[1].eval()
    with torch.no_grad():
        found, _ = run_all(network)
    for name in OF_DATA:
        np.testing.assert_allclose(found[name].value, expected[name].value, rtol=1e-6)
    assert [m.training for m in network.model] == [index != 1 for index in range(10)]
    assert not any(p.requires_grad or p.grad is not None for p in network.model.parameters())
    assert not any(m._forward_pre_hooks for m in network.model.modules())
    assert all(torch.equal(v, state[k]) for k, v in network.model.state_dict().items())


def test_a_network_that_regroups_its_batch_runs_single_images():
    class Regrouping(nn.Module):
        """Treats the channels of an image as images of one channel."""

        def __init__(self):
            super().__init__()
            self.stem, self.next = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
            self.end = nn.Linear(4, 3)

        def forward(self, x):
            x = x.reshape(len(x) * 2, 1, 6, 6)
            x = self.next(self.stem(x).relu()).relu().mean((2, 3))
            return self.end(x).view(-1, 2, 3).mean(1)

    network = network_of(Regrouping(), images=9)
    found, counts = run_all(network, ("taylor", "fisher", "activation-mean"))
    assert counts == {"forwards": 9, "backwards": 9, "images": 9}
    assert (found["taylor"].value > 0).all()
    alone, _ = run_all(network, ("activation-mean",))  # without gates, batches are possible
    np.testing.assert_allclose(alone["activation-mean"].value, found["activation-mean"].value)


def test_only_the_train_split_is_read():
    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError(f"a score read {name} of validation or test")

    network = network_of(plain())
    poisoned = replace(network.data, validation=Forbidden(), test=Forbidden())
    clean = load_or_measure_scores(
        network.model, network.channel_map, network.data, folder=None, seed=0
    )
    found = load_or_measure_scores(
        network.model, network.channel_map, poisoned, folder=None, seed=0
    )
    assert found.key == clean.key
    for name, parts in clean.scores.items():
        assert np.array_equal(parts.value, found.scores[name].value), name


@pytest.fixture
def own_score(monkeypatch):
    """A batch score as in a plugin, unregistered afterwards."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @pp.batch_score("signed-taylor", "gates")
    def signed_taylor(seen: pp.Seen):
        """Sum over images of dL/dgate."""
        return seen.per_gate(lambda gradients: gradients.sum(0))

    return signed_taylor


def test_a_new_score_is_measured_alone(tmp_path, own_score):
    network = network_of(plain())
    view = (network.model, network.channel_map, network.data)
    later = registry._REGISTRY.pop("signed-taylor")
    first = load_or_measure_scores(*view, folder=tmp_path, seed=0)
    assert first.counts == {"forwards": 2, "backwards": 2, "images": IMAGES}
    registry._REGISTRY["signed-taylor"] = later
    runs = count_runs(network.model)
    again = load_or_measure_scores(*view, folder=tmp_path, seed=0)
    assert again.counts == {"forwards": 2, "backwards": 2, "images": IMAGES}
    assert runs["forwards"] == 2 + 1  # one forward pass computes the key
    assert set(again.scores) == set(first.scores) | {"signed-taylor"}
    assert again.key != first.key
    once_more = load_or_measure_scores(*view, folder=tmp_path, seed=0)
    assert once_more.counts == {"forwards": 0, "backwards": 0, "images": 0}
    assert np.array_equal(once_more.scores["taylor"].value, first.scores["taylor"].value)


def test_only_the_named_scores_are_measured_and_unknown_ones_raise():
    network = network_of(plain())
    view = (network.model, network.channel_map, network.data)
    found = load_or_measure_scores(*view, folder=None, seed=0, names=("taylor", "l2"))
    assert list(found.scores) == ["l2", "taylor"]
    with pytest.raises(UserError, match=r"score must be one of .*taylor.*, got 'no-such'"):
        load_or_measure_scores(*view, folder=None, seed=0, names=("no-such",))


def test_the_number_of_images_is_a_setting_and_progress_is_reported():
    network = network_of(plain())
    view, steps = (network.model, network.channel_map, network.data), []
    found = load_or_measure_scores(
        *view, folder=None, seed=0, images=140, on_progress=lambda *step: steps.append(step)
    )
    assert found.counts["images"] == 140
    assert steps == [(128, 140), (140, 140)]
    with pytest.raises(UserError, match="calibration images must be at least 1, got 0"):
        load_or_measure_scores(*view, folder=None, seed=0, images=0)


def test_large_images_use_smaller_batches():
    assert batch_size_for((1, 8, 8)) == batch_size_for((3, 64, 64)) == 128
    assert batch_size_for((3, 224, 224)) == 10
    assert batch_size_for((3, 4000, 4000)) == 1


def test_an_invalid_batch_score_raises_a_user_error(own_score):
    network = network_of(plain())
    with pytest.raises(UserError, match="must need one or more of gates, weights, inputs"):
        pp.batch_score("mine")

    @pp.batch_score("blind", "inputs")
    def blind(seen):
        return seen.per_gate(lambda gradients: gradients.sum(0))

    @pp.batch_score("restless", "gates")
    def restless(seen):
        size = len(seen.gates)
        return LayerScores(np.ones(1), np.zeros(1, np.int32), np.full(1, size % 7, np.int32))

    with pytest.raises(UserError, match=r"must ask for what it reads: @batch_score\(name, 'gates"):
        run_all(network, ("blind",))
    with pytest.raises(UserError, match="'restless' must score the same atoms and layers in"):
        run_all(network, ("restless",))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_network_on_a_gpu_has_the_same_scores():
    network = network_of(plain())
    expected, _ = run_all(network, OF_DATA)
    network.model.cuda()
    found, _ = run_all(network, OF_DATA)
    for name in ("taylor", "fisher", "weight-gradient", "activation-mean"):
        np.testing.assert_allclose(found[name].value, expected[name].value, rtol=1e-2)


@pytest.mark.slow
def test_all_scores_of_a_resnet56_on_2048_images_take_less_than_a_minute():
    import time

    from paretoprune.trainers.models.zoo.resnet import resnet56

    network = network_of(resnet56(), shape=(3, 32, 32), images=2048)
    begin = time.perf_counter()
    _, counts = run_all(network)
    assert time.perf_counter() - begin < 60
    assert counts == {"forwards": 16, "backwards": 16, "images": 2048}
