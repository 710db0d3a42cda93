"""Chunks of an ensemble may be measured in any order, on any worker, with the same result."""

import copy
import pickle

import numpy as np
import pytest
from search_process import finish, start
from tiny_networks import network_of, plain

from paretoprune.analysis.jobs import MeasuredNetwork, StageQueue
from paretoprune.analysis.mask_ensembles import EnsembleSettings, ensemble_stages
from paretoprune.analysis.mask_ensembles import estimator as estimator_module
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


class ShuffledExecutor:
    """Runs steps in random order, each on a copy of the network, as workers do."""

    def __init__(self, scene, rng):
        self.network, self.rng, self.parts = MeasuredNetwork(*scene[:3], DeviceConfig()), rng, []

    def __call__(self, steps):
        queue, ready = StageQueue([steps]), []
        while queue.has_pending or ready:
            while queue.has_pending:
                ready.append(queue.pop())
            pending = ready.pop(int(self.rng.integers(len(ready))))
            done = pickle.loads(pickle.dumps(pending.call))(copy.deepcopy(self.network))
            self.parts += [done] if isinstance(done, ChunkGroupResult) else []
            queue.complete(pending, pickle.loads(pickle.dumps(done)))
        return queue.results[0]


@pytest.mark.parametrize("size", [1, 3, 99])
@pytest.mark.parametrize("per", ["sample", "batch", "gradient", "joined", "packed"])
def test_chunks_measured_in_any_order_equal_a_serial_run(per, size, scene, monkeypatch):
    """Bit for bit. The serial run uses one probe for all chunks and checks convergence once."""
    if per == "packed":
        monkeypatch.setattr(estimator_module, "LARGEST_GRAM", 1)
    kind = {"joined": "gradient", "packed": "sample"}.get(per, per)
    settings = EnsembleSettings(
        per=kind, joined=per == "joined", images=64, samples=16 * 12, agreement=1.0
    )
    monkeypatch.setattr(measuring, "PART", size)
    executor = ShuffledExecutor(scene, np.random.default_rng(size))
    found = executor(ensemble_stages(settings, 0, None, None))
    sampler = ChunkSampler(settings, scene[1].group_of, 64, 0)
    probe = MaskedLossProbe(*scene[:3], fixed_subset(scene[2].train, 64), settings, DeviceConfig())
    serial = new_estimator(sampler)
    serial.taylor = probe.taylor()
    serial.add_results(measure_part(probe, sampler, range(serial.max_chunks)))
    score, errors = serial.scores(serial.fit())
    assert max(len(part.chunks) for part in executor.parts) <= size
    assert sum(len(part.chunks) for part in executor.parts) == serial.max_chunks
    assert np.array_equal(found.score, score)
    assert np.array_equal(found.errors, errors)
    assert found.effort.samples == serial.effort.samples
    assert found.checks[-1] == serial.check_convergence()


def test_a_converged_ensemble_measures_nothing_after_its_check(scene):
    settings = EnsembleSettings(images=64, samples=4096, agreement=0.0)
    executor = ShuffledExecutor(scene, np.random.default_rng(0))
    found = executor(ensemble_stages(settings, 0, None, None))
    assert found.settled
    assert found.effort.samples == 8 * 256
    assert sum(len(part.chunks) for part in executor.parts) == 8


@pytest.mark.slow
def test_one_worker_and_three_measure_the_same_ensemble(tmp_path):
    """In real processes, the results are equal to the last bit."""
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
