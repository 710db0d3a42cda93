"""Loss curves: shared prefixes are exact, and no probe is lost or measured twice."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from oracles import trace
from torch import nn

from benchmarks.interactions import (
    compare_predicted_losses,
    remeasure_around_mask,
)
from paretoprune.analysis.jobs import MeasuredNetwork
from paretoprune.analysis.loss_curves.figure import curves_figure
from paretoprune.analysis.loss_curves.measure import measure_curves
from paretoprune.analysis.loss_curves.prober import LossProber
from paretoprune.search.cli.app import main
from paretoprune.spaces.allocations.loss_budget import predicted_loss
from paretoprune.spaces.graph.verify import random_mask
from paretoprune.spaces.policy.loss_curves import CurveSettings
from paretoprune.trainers.data.batches import select_rows
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.models.zoo.densenet import densenet40
from paretoprune.trainers.models.zoo.lenet import lenet5
from paretoprune.trainers.models.zoo.resnet import resnet20
from paretoprune.trainers.pruning.partial_forward import PartialForward, PartialForwardError

FEW = CurveSettings(images=24, batch_size=10, points=3, refine=1)


def run_in_process(capsys, *words):
    """The exit code of a command and what it printed."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code, capsys.readouterr()


def noise(shape: tuple[int, ...], images: int = 24) -> DataSplits:
    """Random images with random labels."""
    rng = torch.Generator().manual_seed(0)
    rows = [
        Split(torch.randn(n, *shape, generator=rng), torch.randint(10, (n,), generator=rng))
        for n in (images, 4)
    ]
    channels = shape[0]
    return DataSplits("noise", *rows, None, 10, (0.0,) * channels, (1.0,) * channels, shape)


def googlenet() -> nn.Module:
    return torchvision.models.googlenet(weights=None, init_weights=False, num_classes=10)


def swin() -> nn.Module:
    return torchvision.models.swin_t(weights=None, num_classes=10)


NETWORKS = {
    "digits-resnet": (
        lambda: build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0),
        (1, 8, 8),
    ),
    "resnet20": (resnet20, (3, 16, 16)),
    "lenet5": (lenet5, (1, 28, 28)),
    "densenet40": (densenet40, (3, 8, 8)),
    "googlenet": (googlenet, (3, 32, 32)),
    "mobilenet_v3_small": (
        lambda: torchvision.models.mobilenet_v3_small(weights=None, num_classes=10),
        (3, 32, 32),
    ),
}


def noise_network(build, shape) -> MeasuredNetwork:
    traced = trace(build(), shape)
    return MeasuredNetwork(traced.model, traced.channel_map, noise(shape))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("how", ["eval", "batch"])
def test_shared_prefixes_give_the_losses_of_whole_passes(name: str, how: str) -> None:
    network = noise_network(*NETWORKS[name])
    channel_map, rng = network.channel_map, np.random.default_rng(0)
    around = random_mask(channel_map, 0.9, rng)
    settings = replace(FEW, probe=how)
    split = network.data.train
    cheap = LossProber(network, split, settings, around=around)
    plain = LossProber(network, split, settings, around=around, share_prefixes=False)
    assert cheap.shares_prefixes
    assert not plain.shares_prefixes
    groups = sorted(range(len(channel_map.groups)), key=cheap.position_of)
    for group in groups[:: max(1, len(groups) // 4)]:
        own = channel_map.group_of == group
        masks = [np.where(own, rng.random(channel_map.atoms) < 0.5, around), around]
        found, expected = cheap.losses(group, masks), plain.losses(group, masks)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert expected[0] != expected[1]


@pytest.fixture(scope="module")
def digits() -> MeasuredNetwork:
    """A network with real images, in which every channel matters."""
    built, shape = NETWORKS["digits-resnet"]
    traced = trace(built(), shape)
    return MeasuredNetwork(traced.model, traced.channel_map, load_data("digits"))


@pytest.fixture(scope="module")
def order(digits) -> np.ndarray:
    return np.random.default_rng(0).random(digits.channel_map.atoms)


@pytest.mark.parametrize("memory", [0, 30_000, 1 << 30])
def test_less_memory_gives_the_same_numbers(digits, order, memory: int) -> None:
    enough = measure_curves(digits, order, FEW)
    found = measure_curves(digits, order, replace(FEW, memory=memory))
    np.testing.assert_allclose(found.rise, enough.rise, rtol=1e-4)
    assert abs(enough.rise).max() > 0.1


def test_layers_before_a_group_run_once_for_all_its_probes(digits) -> None:
    channel_map = digits.channel_map
    whole = np.ones(channel_map.atoms, dtype=bool)
    prober = LossProber(
        digits, select_rows(digits.data.train, torch.arange(24)), FEW, around=whole
    )
    last = max(range(len(channel_map.groups)), key=prober.position_of)
    calls = {"conv": 0, "linear": 0}
    first = prober._model.get_submodule(channel_map.groups[0].layers[0])
    head = next(m for m in prober._model.modules() if isinstance(m, nn.Linear))
    first.register_forward_hook(lambda *_: calls.update(conv=calls["conv"] + 1))
    head.register_forward_hook(lambda *_: calls.update(linear=calls["linear"] + 1))
    prober.losses(last, [whole] * 5)
    prober.losses(last, [whole])
    batches = 3
    assert calls == {"conv": batches, "linear": 6 * batches}


@pytest.mark.slow
def test_a_network_that_cannot_be_traced_runs_whole_passes() -> None:
    network = noise_network(swin, (3, 32, 32))
    curves = measure_curves(network, np.arange(network.channel_map.atoms) * 1.0, FEW)
    assert np.isfinite(curves.rise).all()


def test_in_place_operations_are_refused() -> None:
    class Overwriting(nn.Module):
        def forward(self, x):
            y = x * 2
            z = y.add_(1)
            return y + z

    with torch.no_grad(), pytest.raises(PartialForwardError, match="in place"):
        PartialForward(Overwriting(), torch.ones(2, 3), ())


def test_only_train_images_are_used(digits, order) -> None:
    poison = Split(torch.full((4, 1, 8, 8), torch.nan), torch.zeros(4, dtype=torch.int64))
    poisoned = replace(digits, data=replace(digits.data, validation=poison, test=poison))
    clean, found = (measure_curves(s, order, FEW) for s in (digits, poisoned))
    assert np.array_equal(clean.rise, found.rise)
    assert clean.failures == 0


def test_a_killed_curve_measurement_resumes(digits, order, tmp_path, monkeypatch) -> None:
    expected = measure_curves(digits, order, FEW, folder=tmp_path / "unbroken")
    measured: list[int] = []
    plain = LossProber.losses

    def counted(self, group, masks):
        measured.append(len(masks))
        return plain(self, group, masks)

    monkeypatch.setattr(LossProber, "losses", counted)

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_curves(digits, order, FEW, folder=tmp_path, on_progress=kill)
    (journal,) = tmp_path.glob("*.probes.jsonl")
    with journal.open("a") as torn:
        torn.write("[4, 1, 2.3")
    before = sum(measured)
    curves = measure_curves(digits, order, FEW, folder=tmp_path)
    assert before > 1
    assert sum(measured) == len(curves.rise) + 1  # no probe was measured twice
    np.testing.assert_allclose(curves.rise, expected.rise, rtol=1e-5)
    assert not list(tmp_path.glob("*.probes.jsonl"))
    again = measure_curves(digits, order, FEW, folder=tmp_path)
    assert sum(measured) == len(curves.rise) + 1
    assert np.array_equal(again.rise, curves.rise)
    assert again.base == curves.base


def test_another_order_or_setting_gives_another_measurement(digits, order, tmp_path) -> None:
    measure_curves(digits, order, FEW, folder=tmp_path)
    measure_curves(digits, order, replace(FEW, memory=7), folder=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    measure_curves(digits, -order, FEW, folder=tmp_path)
    measure_curves(digits, order, replace(FEW, probe="batch"), folder=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_the_prediction_for_one_probed_group_equals_its_measurement(digits, order) -> None:
    curves = measure_curves(digits, order, FEW)
    channel_map = digits.channel_map
    masks = {}
    for group in range(len(channel_map.groups)):
        removed = next(k for k in curves.probes(group) if k)
        masks[f"{group}"] = (channel_map.group_of != group) | (curves.place > removed)
    for found, (group, mask) in zip(
        compare_predicted_losses(digits, curves, masks), masks.items(), strict=True
    ):
        removed = int((~mask).sum())
        variation = abs(found.measured - curves.base)
        assert curves.probes(int(group))[removed] == pytest.approx(variation, rel=1e-4)
        assert found.predicted == predicted_loss(mask, curves, channel_map)


def test_curves_around_a_mask_predict_the_loss_of_that_mask(digits, order) -> None:
    curves = measure_curves(digits, order, FEW)
    candidate = curves.place > 4
    around = remeasure_around_mask(digits, order, curves, lambda _: candidate, rounds=1)
    (found,) = compare_predicted_losses(digits, around, {"candidate": candidate})
    assert np.array_equal(around.around, candidate)
    assert found.predicted == pytest.approx(found.measured, rel=1e-5)
    assert found.measured != pytest.approx(curves.base, rel=1e-2)
    own, removed = digits.channel_map.group_of == 2, next(k for k in around.probes(2) if k)
    masks = {k: np.where(own, around.place > k, candidate) for k in (0, removed)}
    whole, cut = (row.measured for row in compare_predicted_losses(digits, around, masks))
    assert around.probes(2)[removed] == pytest.approx(abs(cut - whole), rel=1e-4)


def test_the_figure_has_every_group_its_probes_and_the_threshold(digits, order) -> None:
    curves = measure_curves(digits, order, FEW)
    figure = curves_figure(curves, digits.channel_map, threshold=0.02)
    names = {trace.name for trace in figure.data}
    assert names == {group.name for group in digits.channel_map.groups}
    dots = sum(len(trace.x) for trace in figure.data if trace.mode == "markers")
    assert dots == len(curves.rise)
    assert figure.layout.shapes[0].y0 == 0.02


def test_sensitivity_prints_each_group_and_reuses_its_folder(capsys, tmp_path) -> None:
    words = ("sensitivity", "--model", "digits-resnet", "--data", "digits", "--images", 64,
             "--score", "mean-abs-weight", "--out", tmp_path)  # fmt: skip
    code, shown = run_in_process(capsys, *words)
    assert code == 0, shown.err
    record = json.loads((tmp_path / "sensitivity.json").read_text())
    for group in record["groups"]:
        assert f"{group['rises'][2]:.4f}" in shown.out
        assert group["atoms"] > 0
    assert (tmp_path / "curves.html").stat().st_size > 1000
    stored = {file: file.stat().st_mtime_ns for file in (tmp_path / "evidence").glob("*.npz")}
    code, again = run_in_process(capsys, *words)
    assert code == 0
    assert again.out.splitlines()[-3:] == shown.out.splitlines()[-3:]
    assert stored == {f: f.stat().st_mtime_ns for f in (tmp_path / "evidence").glob("*.npz")}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--score", "no-such", "score must be one of"),
        ("--probe", "train", "probe must be one of eval, batch"),
        ("--images", 0, "images must be in"),
        ("--weights", "nowhere.pth", "--weights must be a file"),
    ],
)
def test_invalid_options_print_one_line(capsys, tmp_path, option, value, message) -> None:
    code, shown = run_in_process(
        capsys, "sensitivity", "--model", "digits-resnet", "--data", "digits", "--out", tmp_path,
        option, value
    )  # fmt: skip
    assert code == 2
    assert message in shown.err
    assert shown.err.count("\n") == 1
