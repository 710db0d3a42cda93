"""Metrics, batch-norm recalibration and latency equal a plain computation."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from shared_files import shared_file
from torch import nn

from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits, Split, normalize_images
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.metrics.latency import measure_latency
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.models.weights import load_weights
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.runtime.device import DeviceConfig, detect_device_config
from paretoprune.trainers.training.loop import train_model
from paretoprune.trainers.training.optimizer import TrainingSettings


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data("digits")


@pytest.fixture(scope="module")
def trained(digits: DataSplits) -> nn.Module:
    model = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)
    train_model(
        model, digits, TrainingSettings(epochs=4, learning_rate=0.1, batch_size=64), seed=0
    )
    return model


def test_score_equals_the_plain_computation(trained: nn.Module, digits: DataSplits) -> None:
    trained.train()
    score = evaluate(trained, digits.validation, digits, batch_size=50)
    assert trained.training
    labels = digits.validation.labels
    with torch.no_grad():
        logits = trained.eval()(normalize_images(digits.validation.images, digits))
    top5 = (logits.argsort(1, descending=True)[:, :5] == labels[:, None]).any(1)
    assert score.accuracy == float((logits.argmax(1) == labels).double().mean())
    assert score.top5 == float(top5.double().mean())
    assert score.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)


def test_top5_is_none_for_up_to_five_classes(digits: DataSplits) -> None:
    few = DataSplits(
        "x",
        Split(digits.train.images, digits.train.labels % 5),
        Split(digits.validation.images, digits.validation.labels % 5),
        None,
        5,
        (0.3,),
        (0.4,),
        (1, 8, 8),
    )
    model = build_model("digits-resnet", classes=5, input_shape=(1, 8, 8), seed=0)
    assert evaluate(model, few.validation, few).top5 is None


def test_recalibration_gives_the_mean_of_the_batches_statistics(digits: DataSplits) -> None:
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(norm, nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    recalibrate_batch_norm(model, digits, batches=1, batch_size=len(digits.train))
    images = normalize_images(digits.train.images, digits)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert float(norm.running_mean) == pytest.approx(float(images.mean()), abs=1e-5)
    assert float(norm.running_var) == pytest.approx(float(images.var()), rel=1e-4)
    recalibrate_batch_norm(model, digits, batches=4, batch_size=256)
    assert float(norm.running_var) == pytest.approx(float(images.var()), rel=0.02)


def test_recalibration_repairs_wrong_statistics_deterministically(
    trained: nn.Module, digits: DataSplits
) -> None:
    whole = evaluate(trained, digits.validation, digits).accuracy
    spoilt = [copy.deepcopy(trained), copy.deepcopy(trained)]
    for model in spoilt:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
    assert evaluate(spoilt[0], digits.validation, digits).accuracy < whole - 0.2
    for model in spoilt:
        model.train()
        recalibrate_batch_norm(model, digits)
        assert all(m.training for m in model.modules())
        assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert evaluate(spoilt[0], digits.validation, digits).accuracy > whole - 0.02
    states = [model.state_dict() for model in spoilt]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_evaluation_restores_the_mode_of_every_module(
    trained: nn.Module, digits: DataSplits
) -> None:
    model = copy.deepcopy(trained).train()
    frozen = [m.eval() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    evaluate(model, digits.validation, digits)
    recalibrate_batch_norm(model, digits, batches=1)
    measure_latency(model, (1, 8, 8))
    assert model.training
    assert not any(m.training for m in frozen)


def test_recalibration_uses_images_augmented_as_in_training() -> None:
    bright = torch.full((256, 3, 16, 16), 255, dtype=torch.uint8)
    split = Split(bright, torch.zeros(256, dtype=torch.int64))
    plain = DataSplits("bright", split, split, None, 2, (0.0,) * 3, (1.0,) * 3, (3, 16, 16))
    means = []
    for augment in ("none", "crop"):
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(768, 2))
        recalibrate_batch_norm(model, replace(plain, augment=augment), batches=1)
        means.append(float(model[0].running_mean.mean()))
    assert means[0] == pytest.approx(1.0, abs=0.01)
    assert 0.8 < means[1] < 0.95  # shifted images have a dark border


def test_recalibration_changes_nothing_without_norms(digits: DataSplits) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = copy.deepcopy(model.state_dict())
    recalibrate_batch_norm(model, digits)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_latency_grows_with_the_work() -> None:
    narrow, wide = (nn.Sequential(nn.Conv2d(3, w, 3), nn.Conv2d(w, w, 3)) for w in (4, 128))
    machine = DeviceConfig()
    small, large = (measure_latency(net, (3, 32, 32), machine=machine) for net in (narrow, wide))
    assert 0 < small.median_ms < large.median_ms
    assert small.spread_ms >= 0
    assert measure_latency(wide, (3, 32, 32), batch=8, machine=machine).median_ms > large.median_ms


def test_small_images_use_float32_on_every_machine() -> None:
    model = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)
    machine = detect_device_config(model, (1, 8, 8))
    assert (machine.bf16, machine.channels_last, machine.threads) == (False, False, 1)


def test_bf16_scores_like_float32() -> None:
    archive = shared_file("data", "mnist.tar.gz")
    data = load_data(f"mnist:{archive}")
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10)
    )
    exact, fast = DeviceConfig(), DeviceConfig(channels_last=True, bf16=True)
    log = train_model(
        model, data, TrainingSettings(epochs=0.3, learning_rate=0.1), seed=0, machine=exact
    )
    assert log.machine == exact
    scores = [evaluate(model, data.validation, data, machine=m) for m in (exact, fast)]
    assert scores[0].accuracy > 0.9
    assert abs(scores[0].accuracy - scores[1].accuracy) < 0.005


@pytest.mark.slow
def test_published_resnet20_scores_81_percent_on_jpeg() -> None:
    archive = shared_file("data", "cifar10-jpeg.tar.gz")
    data = load_data(f"folder:{archive}")
    model = build_model("resnet20", classes=10, input_shape=data.input_shape, seed=0)
    load_weights(model, shared_file("weights", "resnet20-12fca82f.th"))
    assert data.test is not None
    score = evaluate(model, data.test, data, machine=DeviceConfig())
    assert score.accuracy == pytest.approx(0.810, abs=0.001)
