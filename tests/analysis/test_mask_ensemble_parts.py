"""An ensemble measured in parts, in any order and anywhere: their sums are those of the whole."""

import copy
import pickle

import numpy as np
import pytest
from search_process import finish, start
from tiny_networks import network_of, plain

from paretoprune.analysis.jobs import MeasuredNetwork, StageQueue
from paretoprune.analysis.mask_ensembles import EnsembleSettings, ensemble_stages
from paretoprune.analysis.mask_ensembles import estimator as campaigns
from paretoprune.analysis.mask_ensembles import measure as measuring
from paretoprune.analysis.mask_ensembles.chunks import ChunkGroupResult, ChunkSampler, measure_part
from paretoprune.analysis.mask_ensembles.estimator import new_estimator
from paretoprune.analysis.mask_ensembles.masked_loss import MaskedLossProbe
from paretoprune.trainers.data.batches import fixed_subset
from paretoprune.trainers.runtime.device import DeviceConfig


@pytest.fixture(scope="module")
def scene():
    network = network_of(plain())
    return network.model, network.channel_map, network.data


class Deal:
    """Does steps in any order, each with a copy of the network, as workers do."""

    def __init__(self, scene, rng):
        self.on, self.rng, self.parts = MeasuredNetwork(*scene[:3], DeviceConfig()), rng, []

    def __call__(self, steps):
        rota, ready = StageQueue([steps]), []
        while rota.has_pending or ready:
            while rota.has_pending:
                ready.append(rota.pop())
            turn = ready.pop(int(self.rng.integers(len(ready))))
            done = pickle.loads(pickle.dumps(turn.call))(copy.deepcopy(self.on))
            self.parts += [done] if isinstance(done, ChunkGroupResult) else []
            rota.complete(turn, pickle.loads(pickle.dumps(done)))
        return rota.results[0]


@pytest.mark.parametrize("size", [1, 3, 99])
@pytest.mark.parametrize("per", ["sample", "batch", "gradient", "joined", "packed"])
def test_parts_measured_anywhere_add_up_to_the_whole_bit_for_bit(per, size, scene, monkeypatch):
    """The whole: one probe, one chunk after the other, looked at with nothing in between."""
    if per == "packed":
        monkeypatch.setattr(campaigns, "LARGEST_GRAM", 1)
    kind = {"joined": "gradient", "packed": "sample"}.get(per, per)
    settings = EnsembleSettings(
        per=kind, joined=per == "joined", images=64, samples=16 * 12, agreement=1.0
    )
    monkeypatch.setattr(measuring, "PART", size)
    deal = Deal(scene, np.random.default_rng(size))
    found = deal(ensemble_stages(settings, 0, None, None))
    draws = ChunkSampler(settings, scene[1].group_of, 64, 0)
    probe = MaskedLossProbe(*scene[:3], fixed_subset(scene[2].train, 64), settings, DeviceConfig())
    whole = new_estimator(draws)
    whole.taylor = probe.taylor()
    whole.add_results(measure_part(probe, draws, range(whole.max_chunks)))
    score, errors = whole.scores(whole.fit())
    assert max(len(part.chunks) for part in deal.parts) <= size
    assert sum(len(part.chunks) for part in deal.parts) == whole.max_chunks
    assert np.array_equal(found.score, score)
    assert np.array_equal(found.errors, errors)
    assert found.effort.samples == whole.effort.samples
    assert found.checks[-1] == whole.check_convergence()


def test_what_settles_before_its_limit_measures_nothing_beyond_the_check(scene):
    settings = EnsembleSettings(images=64, samples=4096, agreement=0.0)
    deal = Deal(scene, np.random.default_rng(0))
    found = deal(ensemble_stages(settings, 0, None, None))
    assert found.settled
    assert found.effort.samples == 8 * 256
    assert sum(len(part.chunks) for part in deal.parts) == 8


@pytest.mark.slow
def test_one_worker_and_three_measure_the_same_ensemble(tmp_path):
    """In real processes: the evidence is equal to the last bit, and parts were measured by all."""
    words = ("--trials", 1, "--scores", "ensemble:agreement=1,taylor", "--no-halving")
    found = {}
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        code, _, err = finish(start(folder, *words, "--workers", workers))
        assert code == 0, err
        tables = [dict(np.load(path)) for path in sorted(folder.glob("evidence/*.npz"))]
        (found[workers],) = [table for table in tables if "score" in table]
    for name in ("score", "errors", "coefficients", "root"):
        assert np.array_equal(found[1][name], found[3][name])
