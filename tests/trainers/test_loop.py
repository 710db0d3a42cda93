"""The training loop learns, is reproducible, resumes, and reports when and why it ended."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from paretoprune.spaces.errors import UserError
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.runtime.device import DeviceConfig
from paretoprune.trainers.training.distillation import Teacher, fused_eval_copy
from paretoprune.trainers.training.loop import TrainingProgress, run_session, train_model
from paretoprune.trainers.training.optimizer import (
    TrainingSettings,
    build_optimizer,
    learning_rate_at,
)
from paretoprune.trainers.training.session import (
    AuxiliaryLosses,
    TrainingDivergedError,
    TrainingSession,
)

TRAIN = TrainingSettings(epochs=10, learning_rate=0.1, batch_size=64)
SHORT = TrainingSettings(epochs=1, learning_rate=0.1, batch_size=128)


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data("digits")


def network(seed: int = 0) -> nn.Module:
    return build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=seed)


@pytest.fixture(scope="module")
def trained(digits: DataSplits) -> nn.Module:
    model = network()
    train_model(model, digits, TRAIN, seed=0)
    return model


def weights(model: nn.Module) -> Tensor:
    return torch.cat([t.double().flatten() for t in model.state_dict().values()])


def test_digits_are_learned_in_ten_epochs(trained: nn.Module, digits: DataSplits) -> None:
    assert evaluate(trained, digits.validation, digits).accuracy > 0.97


def test_same_seed_gives_same_weights_and_keeps_the_global_random_state(
    digits: DataSplits,
) -> None:
    before = torch.get_rng_state()
    a, b, c = network(), network(), network()
    train_model(a, digits, SHORT, seed=1)
    train_model(b, digits, SHORT, seed=1)
    train_model(c, digits, SHORT, seed=2)
    assert torch.equal(weights(a), weights(b))
    assert not torch.equal(weights(a), weights(c))
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_is_reproducible_with_a_seed(digits: DataSplits) -> None:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    second = copy.deepcopy(first)
    train_model(first, digits, SHORT, seed=3)
    torch.rand(7)
    train_model(second, digits, SHORT, seed=3)
    assert torch.equal(weights(first), weights(second))


def test_fractions_of_an_epoch_are_trained(digits: DataSplits) -> None:
    log = train_model(network(), digits, TrainingSettings(epochs=0.25, batch_size=64), seed=0)
    assert log.steps == round(0.25 * (len(digits.train) // 64))
    assert log.ended == "finished"


def test_reports_come_at_the_requested_epochs_and_false_stops_the_run(digits: DataSplits) -> None:
    seen: list[TrainingProgress] = []

    def listen(progress: TrainingProgress) -> bool:
        seen.append(progress)
        return progress.epoch < 1

    tuning = TrainingSettings(epochs=3, batch_size=64, reports=(0.25, 0.5))
    log = train_model(network(), digits, tuning, seed=0, on_epoch=listen)
    assert [round(p.epoch, 1) for p in seen] == [0.2, 0.5, 1.0]
    assert log.ended == "stopped"
    assert log.steps == seen[-1].step


def test_reports_do_not_change_the_result(digits: DataSplits) -> None:
    a, b = network(), network()
    train_model(a, digits, SHORT, seed=1)
    train_model(
        b, digits, TrainingSettings(epochs=1, learning_rate=0.1, reports=(0.3, 0.6)), seed=1
    )
    assert torch.equal(weights(a), weights(b))


def test_divergence_names_the_step(digits: DataSplits) -> None:
    with pytest.raises(TrainingDivergedError, match=r"got (nan|inf) at step \d+ of"):
        train_model(
            network(), digits, TrainingSettings(epochs=3, learning_rate=1e20, warmup=0), seed=0
        )


def test_time_limit_ends_the_run(digits: DataSplits) -> None:
    log = train_model(network(), digits, TrainingSettings(epochs=100, max_seconds=0.3), seed=0)
    assert log.ended == "max_seconds"
    assert 0.3 < log.seconds < 3


def test_a_teacher_brings_the_outputs_nearer_to_its_own_than_labels_do(
    trained: nn.Module, digits: DataSplits
) -> None:
    taught, alone = network(5), network(5)
    tuning = TrainingSettings(epochs=2, learning_rate=0.1, distill=0.9)
    state = copy.deepcopy(trained.state_dict())
    train_model(taught, digits, tuning, seed=0, teacher=Teacher(trained, DeviceConfig()))
    train_model(alone, digits, tuning, seed=0)
    images = (digits.validation.images.float() / 255 - digits.mean[0]) / digits.std[0]
    with torch.no_grad():
        want = trained(images).softmax(1)
        far = [(net(images).softmax(1) - want).abs().sum().item() for net in (taught, alone)]
    assert far[0] < far[1]
    assert all(torch.equal(state[k], v) for k, v in trained.state_dict().items())


class Branching(nn.Module):
    """Control flow that torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).flatten(1)[:, :10] if x.sum() > 0 else x.flatten(1)[:, :10]


def test_a_fused_teacher_gives_the_outputs_of_the_network(
    trained: nn.Module, digits: DataSplits
) -> None:
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for model in (trained, Branching().eval()):
        with torch.no_grad():
            folded = Teacher(model, DeviceConfig())(images)
            assert torch.allclose(folded, model(images), atol=1e-4)
    kinds = {type(m) for m in fused_eval_copy(trained).modules()}
    assert nn.BatchNorm2d not in kinds


def test_a_teacher_with_a_cache_runs_once_per_batch(
    trained: nn.Module, digits: DataSplits
) -> None:
    asked: list[int] = []

    def outcome(teacher: Teacher, seed: int = 0, data: DataSplits = digits) -> tuple[int, Tensor]:
        model, before = network(5), len(asked)
        train_model(
            model, data, TrainingSettings(epochs=1, distill=0.9), seed=seed, teacher=teacher
        )
        return len(asked) - before, next(model.parameters()).detach()

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return trained(x)  # type: ignore[no-any-return]

    steps, want = outcome(Teacher(Counted().eval(), DeviceConfig()))
    teacher = Teacher(Counted().eval(), DeviceConfig(), memory=2**20)
    first, second = outcome(teacher), outcome(teacher)
    assert (first[0], second[0]) == (steps, 0)
    assert torch.equal(first[1], want)
    assert torch.equal(second[1], want)
    assert outcome(teacher, seed=1)[0] == steps  # other batches
    assert outcome(teacher, data=replace(digits, augment="none"))[0] == steps  # other images
    batch = 128 * 10 * 4
    narrow = Teacher(Counted().eval(), DeviceConfig(), memory=2 * batch)
    assert (outcome(narrow)[0], outcome(narrow)[0]) == (steps, steps - 2)


def test_penalty_of_a_gate_reaches_its_parameters(digits: DataSplits) -> None:
    model = network()
    model.gate = nn.Parameter(torch.ones(3))
    shares: list[float] = []

    def penalty(share: float) -> Tensor:
        shares.append(share)
        gate = model.gate
        assert isinstance(gate, Tensor)
        return gate.square().sum()

    run_session(
        TrainingSession(model, digits, SHORT, seed=0, guidance=AuxiliaryLosses(penalty=penalty))
    )
    assert float(model.gate.detach().abs().max()) < 0.9
    assert shares[0] == 0.0
    assert shares == sorted(shares)


def test_norms_and_biases_have_no_weight_decay() -> None:
    groups = build_optimizer(network(), TrainingSettings(weight_decay=0.1)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])


def test_schedule_warms_up_then_falls_to_zero() -> None:
    rates = [
        learning_rate_at(TrainingSettings(learning_rate=1.0, warmup=0.1), s, 100)
        for s in range(100)
    ]
    assert rates[0] < rates[5] < rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_the_averaged_weights_are_the_result(digits: DataSplits) -> None:
    plain, averaged = network(), network()
    train_model(plain, digits, SHORT, seed=0)
    train_model(averaged, digits, TrainingSettings(epochs=1, learning_rate=0.1, ema=0.9), seed=0)
    start = weights(network())
    moved = [(weights(m) - start).norm() for m in (plain, averaged)]
    assert 0 < moved[1] < moved[0]


def test_invalid_settings_are_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match="epochs must be > 0, got -1"):
        TrainingSettings(epochs=-1)
