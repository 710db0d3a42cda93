"""A trial that runs out of memory starts again with half of every batch size."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.prepare import LoadedInputs, check_inputs, prepare_search
from paretoprune.search.execution.executor import local_executors
from paretoprune.search.storage.run_folder import create_run_folder
from paretoprune.search.storage.trial_spec import TrialSpec
from paretoprune.search.trial.execute import execute_trial
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.policy import Policy
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.runtime.device import halve_batch, is_out_of_memory

TOO_MUCH = 1 << 60  # bytes: no machine has them, and torch says so as at any other size
POLICIES = {
    "one-shot": Policy("l2"),
    "refitted": Policy("l2", refit=True),
    "gradual": Policy("taylor", schedule="gradual", steps=2, step_share=0.5),
    "curves": Policy("taylor", allocation="loss-budget", schedule="gradual", steps=2),
    "holistic": Policy("l2", schedule="holistic", gate_share=0.5),
}


class MemoryLimited(nn.Module):
    """Runs out of memory with more than `room` images at once."""

    room = None
    only_training = False

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 12, 3, padding=1)
        self.last = nn.Linear(12, 10)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        watched = self.training or not MemoryLimited.only_training
        if watched and MemoryLimited.room is not None and len(x) > MemoryLimited.room:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return self.last(self.second(x).relu().mean((2, 3)))


def real_error():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    return caught.value


def test_only_memory_errors_of_torch_count():
    assert is_out_of_memory(real_error())
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    for other in ("pin_memory must be a bool", "an illegal memory access was encountered",
                  "unsupported memory format option"):  # fmt: skip
        assert not is_out_of_memory(RuntimeError(other))


def test_halving_a_batch_stops_at_the_minimum():
    assert halve_batch(9, real_error()) == 4
    with pytest.raises(RuntimeError, match="memory"):
        halve_batch(15, real_error(), min_batch=8)
    with pytest.raises(RuntimeError, match="shape"):
        halve_batch(64, RuntimeError("shape"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("within") / "run"
    settings = SearchSettings(target_flops="0.5", epochs=0.5)
    inputs = LoadedInputs(settings, load_data("digits", seed=0), MemoryLimited())
    run = create_run_folder(folder)
    run.config.write_text("{}")
    wanted = list(POLICIES.values())
    executors = local_executors(lambda line: None)
    checked = check_inputs(inputs, run, lambda _: wanted, executors.log)
    return prepare_search(checked, run, (), executors).context


def execute(prepared, policy, number, room, monkeypatch):
    monkeypatch.setattr(MemoryLimited, "room", room)
    rungs = []
    spec = TrialSpec(0, policy, Target(flops=0.5), 7, number=number)
    evaluation = execute_trial(spec, prepared, on_rung=rungs.append).evaluation
    left = sorted(path.name for path in (prepared.root / "trials" / str(number)).iterdir())
    return evaluation, left


@pytest.mark.parametrize("schedule", POLICIES)
def test_a_trial_halves_its_batches_wherever_memory_runs_out(schedule, prepared, monkeypatch):
    number = 10 * list(POLICIES).index(schedule)
    first, left = execute(prepared, POLICIES[schedule], number, 40, monkeypatch)
    again, _ = execute(prepared, POLICIES[schedule], number + 1, 40, monkeypatch)
    assert first.flops_fraction <= 0.5
    assert (first.accuracy, first.loss) == (again.accuracy, again.loss)
    assert not [name for name in left if "gradual" in name or "gates" in name]


def test_a_rung_is_reported_once_however_often_a_trial_starts(prepared, monkeypatch):
    with_rungs = replace(prepared, budget=replace(prepared.budget, rung_shares=(0.0, 0.5)))
    monkeypatch.setattr(MemoryLimited, "room", 40)
    monkeypatch.setattr(MemoryLimited, "only_training", True)
    rungs = []
    spec = TrialSpec(0, POLICIES["one-shot"], Target(flops=0.5), 7, number=70)
    execute_trial(spec, with_rungs, on_rung=rungs.append)
    assert [rung.index for rung in rungs] == [0, 1]


def test_a_trial_that_fits_with_no_batch_size_raises(prepared, monkeypatch):
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        execute(prepared, POLICIES["one-shot"], 80, 4, monkeypatch)
