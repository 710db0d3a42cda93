"""A dense training resumes bit for bit, and its record describes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.deploy.train_command import train_command
from paretoprune.search.driver import dense_model as search_dense
from paretoprune.search.driver.dense_model import DenseModelInputs
from paretoprune.spaces.errors import UserError
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.sources.user import convert_user_data
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.runtime.device import DeviceConfig
from paretoprune.trainers.training.loop import TrainingProgress
from paretoprune.trainers.training.optimizer import TrainingSettings
from paretoprune.trainers.training.train_dense import (
    DenseTrainingSpec,
    file_sha256,
    train_dense_baseline,
)

TUNING = TrainingSettings(epochs=3, learning_rate=0.1, distill=0.0, ema=0.9, reports=(1.5,))


def job(out: Path) -> DenseTrainingSpec:
    return DenseTrainingSpec("digits-resnet", "digits", out, TUNING, save_seconds=0)


def interrupt_after(epoch: float):  # type: ignore[no-untyped-def]
    def report(progress: TrainingProgress) -> bool:
        if progress.epoch >= epoch:
            raise KeyboardInterrupt
        return True

    return report


@pytest.mark.parametrize("epoch", [1.0, 1.4])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, epoch: float
) -> None:
    tuning = replace(TUNING, learning_rate=0.01)
    whole = replace(job(tmp_path / "whole.safetensors"), tuning=tuning)
    broken = replace(job(tmp_path / "broken.safetensors"), tuning=tuning)
    train_dense_baseline(whole)
    with pytest.raises(KeyboardInterrupt):
        train_dense_baseline(broken, on_report=interrupt_after(epoch))
    assert not broken.out.exists()
    seen: list[float] = []
    train_dense_baseline(broken, on_report=lambda p: not seen.append(p.epoch))
    assert min(seen) > epoch
    assert file_sha256(whole.out) == file_sha256(broken.out)
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    first = job(tmp_path / "w.safetensors")
    with pytest.raises(KeyboardInterrupt):
        train_dense_baseline(first, on_report=interrupt_after(1))
    with pytest.raises(UserError, match="got seed = 5 instead of 0; repeat them or delete"):
        train_dense_baseline(replace(first, seed=5))


def test_a_finished_training_is_read_from_its_record_and_not_repeated(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    result = train_dense_baseline(job(out))
    record = json.loads((tmp_path / "w.safetensors.json").read_text())
    assert record["sha256"] == file_sha256(out)
    assert record["validation"]["accuracy"] == result.validation.accuracy
    assert "conv1.weight" in load_file(out)

    def never(progress: TrainingProgress) -> bool:
        raise AssertionError(f"trained again: {progress}")

    assert train_dense_baseline(job(out), on_report=never) == replace(
        result, settings=record["settings"]
    )


def test_a_stopped_run_can_be_resumed(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    train_dense_baseline(job(out), on_report=lambda p: p.epoch < 1)
    assert out.exists()
    early = file_sha256(out)
    seen: list[float] = []
    train_dense_baseline(job(out), on_report=lambda p: not seen.append(p.epoch))
    assert (min(seen), max(seen)) == (1.5, 3.0)
    assert file_sha256(out) != early


def test_a_killed_search_resumes_its_dense_training(tmp_path, monkeypatch):
    monkeypatch.setattr(search_dense, "SAVE_SECONDS", 0.0)
    data, settings = load_data("digits"), SearchSettings(target_flops="0.4", dense_epochs=3.0)

    def trained(checkpoint, say):
        model = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)
        on = DenseModelInputs(model, data, settings)
        return search_dense.train_dense_weights(DeviceConfig(), checkpoint, on, say)

    def killed(line):
        if "epoch 2/" in line:
            raise KeyboardInterrupt

    said: list[str] = []
    whole = trained(tmp_path / "elsewhere" / "unseen", said.append)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "dense.checkpoint", killed)
    assert trained(tmp_path / "dense.checkpoint", said.append) == whole
    assert any("continuing after epoch 2" in line for line in said)


def test_a_diverged_dense_training_raises_one_line_with_a_remedy(tmp_path):
    huge = torch.full((80, 1, 8, 8), 3e38)  # finite, but no sum of it is
    data = convert_user_data(((huge, torch.arange(80) % 10), (huge[:20], torch.arange(20) % 10)))
    model = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)
    on = DenseModelInputs(model, data, SearchSettings(target_flops="0.4", dense_epochs=1.0))
    with pytest.raises(UserError, match=r"got nan at step 1 of .*pass its weights$") as error:
        search_dense.train_dense_weights(
            DeviceConfig(), tmp_path / "elsewhere" / "unseen", on, list[str]().append
        )
    assert "\n" not in str(error.value)
    asked = DenseTrainingSpec("digits-resnet", "digits", tmp_path / "w.safetensors")
    with pytest.raises(
        UserError, match=r"at step \d+ of .*; start again with a lower learning_rate"
    ):
        train_command(asked, epochs=1, learning_rate=1e30)
