"""The proof benchmark: equal rules, exact prices of the peers' networks, cells that fill up."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from benchmarks.cells import Unavailable, fill
from benchmarks.scene import Scene
from benchmarks.search import contenders, with_fastnas
from benchmarks.search.bench import Bench
from benchmarks.search.blocks import plain, streams_kept
from benchmarks.search.contenders import CONTENDERS, cell_name, measure
from benchmarks.search.figures import Point, at_size, figures, front_of
from benchmarks.search.ours import rehearsed, screening_of, trials_paid
from benchmarks.search.plot import draw
from benchmarks.search.rows import counting
from benchmarks.search.rules import HIGH, LEAST_ACCURACY, LOW, SIZES, Rules, sizes
from benchmarks.search.table import table
from paretoprune.analysis.measure import MeasurementContext, ignore_progress, measure_for_policies
from paretoprune.analysis.untrained_loss import evaluate_untrained
from paretoprune.spaces.allocations.decode import PruningSpace
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.policy import POLICY_PRESETS, Policy
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.metrics.count_macs import count_macs_and_params
from paretoprune.trainers.models.zoo.resnet import resnet20
from paretoprune.trainers.runtime.device import DeviceConfig
from paretoprune.trainers.training.distillation import Teacher

RULES = Rules("images", images=4000, epochs=0.5, workers=1)


def noise(rows: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(rows) % 10)


@pytest.fixture(scope="module")
def scene() -> Scene:
    torch.manual_seed(0)
    model = resnet20().eval()
    data = DataSplits(
        "noise",
        noise(256, 0),
        noise(64, 1),
        noise(64, 2),
        10,
        (0.5,) * 3,
        (0.25,) * 3,
        (3, 32, 32),
    )
    channel_map = trace_channel_map(model, data.input_shape)
    space, machine = PruningSpace(channel_map, CostModel(channel_map)), DeviceConfig(device="cpu")
    return Scene(model, data, space, machine, Teacher(model, machine), {"network": "resnet20"})


def points(*rows: tuple[float, float, float | None]) -> list[Point]:
    return [Point(str(i), *row) for i, row in enumerate(rows)]


def test_grid_begins_with_the_quoted_sizes_and_stays_where_fronts_are_compared():
    first = list(islice(sizes(), 200))
    assert first[0] == SIZES[0]
    assert first[2] == SIZES[1]
    assert all(LOW <= size <= HIGH for size in first)
    assert len(set(first)) == len(first)  # a size that came twice would buy nothing new
    spread = sorted(set(first) - set(SIZES))
    gaps = [b / a for a, b in zip([LOW, *spread], [*spread, HIGH], strict=True)]
    assert max(gaps) < 1.02  # evenly, in ratios: 198 sizes over a factor of 4


def test_front_is_chosen_by_validation_alone():
    found = front_of(
        points((0.3, 0.70, 0.9), (0.4, 0.69, 0.99), (0.5, 0.80, 0.1), (0.3, 0.6, 1.0))
    )
    assert [(p.flops, p.validation) for p in found] == [(0.3, 0.70), (0.5, 0.80)]


def test_accuracy_at_a_size_is_that_of_the_best_network_within_it():
    front = front_of(points((0.39, 0.70, 0.71), (0.4, 0.75, 0.74), (0.41, 0.9, 0.9)))
    found = at_size(front, 0.4)
    assert found is not None
    assert found.test == 0.74
    assert at_size(front, 0.3) is None


def test_hypervolume_is_the_area_of_the_steps_above_the_reference():
    front = points((0.4, 0.7, 0.7), (0.6, 0.8, 0.8), (0.9, 0.99, 0.99))  # the last: outside
    area = (0.6 - 0.4) * (0.7 - LEAST_ACCURACY) + (HIGH - 0.6) * (0.8 - LEAST_ACCURACY)
    assert figures(front)["hypervolume"]["test"] == pytest.approx(area)


def test_no_front_has_no_volume():
    assert figures([])["hypervolume"] == {"validation": 0.0, "test": 0.0}
    assert figures([])["at"] == {str(size): None for size in SIZES}


def test_cells_have_one_name_each_and_ours_and_the_peers_come_first():
    assert list(CONTENDERS)[:4] == ["ours", "fastnas", "torch-pruning", "random"]
    assert {*POLICY_PRESETS, "ours at half", "uniform-l1", "nni"} == set(list(CONTENDERS)[4:])
    names = {cell_name(contender, seed) for contender in CONTENDERS for seed in range(3)}
    assert len(names) == 3 * len(CONTENDERS)


def test_rows_are_counted_once_a_forward(scene):
    seen = []
    with counting(seen.append), torch.no_grad():
        scene.model(torch.zeros(3, 3, 32, 32))
        scene.model(torch.zeros(2, 3, 32, 32))
    scene.model(torch.zeros(7, 3, 32, 32))
    assert seen == [3, 2]


def test_what_a_search_has_rehearsed_is_counted(scene, tmp_path):
    channel_map = scene.space.channel_map
    on = MeasurementContext(scene.model, channel_map, scene.data, 0, tmp_path)
    measure_for_policies([Policy("l2"), Policy("taylor")], on)
    assert rehearsed(tmp_path) == 0
    masks = np.ones((3, channel_map.atoms), dtype=bool)
    masks[1, 0] = masks[2, 1] = False
    for part in (masks[:1], masks[1:]):
        evaluate_untrained(part, on, ignore_progress)
    assert rehearsed(tmp_path) == 3


def test_images_stop_a_contender_before_its_budget_is_passed(scene, tmp_path):
    bench = Bench(scene, replace(RULES, images=500), 0, tmp_path)  # a fine-tune takes 128
    assert bench.has_room()
    bench.scored, bench.trained = 200, 172.0
    assert bench.has_room()
    bench.scored += 1
    assert not bench.has_room()


@pytest.mark.parametrize("known", [0, 5])
def test_our_search_is_given_as_many_trials_as_its_images_pay_for(scene, tmp_path, known):
    bench, images = Bench(scene, RULES, 0, tmp_path), 100_000  # a fine-tune takes 128

    def cost_of(more: int) -> float:
        return 128 * more + screening_of(known + more, bench)

    paid = trials_paid(images, known, bench)
    assert cost_of(paid) <= images < cost_of(paid + 1)
    assert trials_paid(0, known, bench) == 0


def test_time_stops_a_contender_before_its_budget_is_passed(scene, tmp_path):
    bench = Bench(scene, Rules("wall", minutes=1.0), 0, tmp_path)
    assert bench.has_room()
    bench.longest = 61.0
    assert not bench.has_room()


def test_a_peer_that_is_not_installed_stays_missing(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(contenders.NEEDS, "fastnas", ("no_such_package",))
    cells = {"fastnas seed 0": lambda: measure("fastnas", 0, RULES, scene, tmp_path)}
    found = fill(tmp_path / "out.json", {}, cells)
    assert found["missing"] == ["fastnas seed 0"]
    assert "no_such_package" in capsys.readouterr().out
    with pytest.raises(Unavailable):
        cells["fastnas seed 0"]()


def test_cells_that_are_not_asked_for_stay_missing(tmp_path):
    cells = {"a": lambda: {"x": 1}, "b": lambda: {"x": 2}}
    found = fill(tmp_path / "out.json", {}, cells, only={"b"})
    assert found["missing"] == ["a"]
    assert set(fill(tmp_path / "out.json", {}, cells)["cells"]) == {"a", "b"}


def test_table_and_figure_tell_of_every_contender():
    cell = {
        **figures(points((0.4, 0.7, 0.7), (0.6, 0.8, 0.8))),
        "wall_seconds": 60.0,
        "images_trained": 1000,
    }
    found = {
        "network": "resnet20",
        "data": "CIFAR-10",
        "budget": {"minutes": 20.0},
        "workers": 2,
        "dense": {"test": 0.9},
        "cells": {"ours seed 0": cell, "ours seed 1": cell, "a <peer> seed 0": cell},
        "missing": ["random seed 0"],
    }
    text = table(found)
    assert "0.7000" in text
    assert "missing: random seed 0" in text
    drawn = ElementTree.fromstring(draw(json.loads(json.dumps(found))))
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ours", "a <peer>", "dense"} <= set(words)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) == 2


def test_torch_pruning_network_becomes_ours_with_equal_outputs_and_price(scene, tmp_path):
    pytest.importorskip("torch_pruning")
    from benchmarks.search.with_torch_pruning import SETTINGS, cut_to

    bench, free = Bench(scene, RULES, 0, tmp_path), streams_kept(scene)
    peer = cut_to(scene.model, 0.5, SETTINGS["norm global"], bench)
    network, flops = plain(peer, scene, free)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), peer.eval()(images))
    shape = scene.data.input_shape
    assert (
        flops
        == count_macs_and_params(peer, shape)[0] / count_macs_and_params(scene.model, shape)[0]
    )
    assert 0.45 < flops <= 0.5


BUDGETS = {  # what their scores take, and more
    "fastnas": 14_000,
    "torch-pruning": 2500,
    "nni": 5000,
}


@pytest.mark.slow
@pytest.mark.parametrize("contender", ["fastnas", "torch-pruning", "nni", "holistic"])
def test_a_contender_spends_its_budget_and_reports_a_measured_front(
    contender, scene, tmp_path, monkeypatch
):
    for package in contenders.NEEDS.get(contender, ()):
        pytest.importorskip(package)
    monkeypatch.setattr(with_fastnas, "BATCH", 2)
    rules = replace(RULES, images=BUDGETS.get(contender, 2000))
    found = measure(contender, 0, rules, scene, tmp_path)
    assert found["front"]
    assert all(point["test"] is not None for point in found["front"])
    assert found["images_trained"] + found["images_scored"] <= rules.images
    assert not found["failures"]
    assert Path(tmp_path / "images" / f"{contender}-seed-0").is_dir()
