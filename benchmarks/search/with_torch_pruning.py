"""Torch-Pruning: the best of its settings by the fine-tune at our target, then all sizes with it.

Its pruning ratio is of channels, so the ratio of a size is found by bisection.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.search.bench import Bench
from benchmarks.search.blocks import plain, streams_kept
from benchmarks.search.rules import SIZES, sizes
from benchmarks.search.worker import NetworkTask
from paretoprune.trainers.data.batches import iterate_batches
from paretoprune.trainers.metrics.count_macs import count_macs_and_params

SETTINGS: dict[str, dict[str, Any]] = {
    f"{importance} {scope}": {"importance": importance, **options}
    for importance in ("taylor", "norm")
    for scope, options in (
        ("global", {"global_pruning": True}),
        ("isomorphic", {"global_pruning": True, "isomorphic": True}),
        ("local", {"global_pruning": False}),
    )
}
MOST = 0.9  # of a layer's channels may go, as in its own examples
BISECTIONS = 10
GRADIENT_BATCHES = 10


def torch_pruning(bench: Bench) -> dict[str, Any]:
    """Every setting at our target, then the best of them over the grid."""
    import torch_pruning as tp

    scene, free = bench.scene, streams_kept(bench.scene)
    with_gradients = copy.deepcopy(scene.model)
    with bench.scoring():
        take_gradients(with_gradients, bench)

    def offer(setting: str, size: float) -> None:
        found = cut_to(with_gradients, size, SETTINGS[setting], bench)
        network, flops = plain(found, scene, free)
        task = NetworkTask(network, flops, bench.rules, bench.tuning_seed)
        bench.offer(f"{setting} @ {size}", task, scene)

    return {"version": tp.__version__, "best": best_over_sizes(bench, SETTINGS, offer)}


def best_over_sizes(
    bench: Bench, settings: Iterable[str], offer: Callable[[str, float], None]
) -> str:
    """Offer every setting at our target, then the best of them over the grid; its name."""
    for setting in settings:
        if bench.has_room():
            offer(setting, SIZES[0])
    best = max(bench.settled(), key=lambda point: point.validation).label.split(" @ ")[0]
    for size in islice(sizes(), 1, None):
        if not bench.has_room():
            break
        offer(best, size)
    return best


def take_gradients(network: nn.Module, bench: Bench) -> None:
    """Sum the gradients of a few batches, for its Taylor importance."""
    data = bench.scene.data
    generator = torch.Generator().manual_seed(bench.seed)
    reader = iterate_batches(data.train, data, batch_size=128, generator=generator)
    network.eval()
    for images, labels in islice(reader, GRADIENT_BATCHES):
        F.cross_entropy(network(images), labels).backward()


def cut_to(network: nn.Module, size: float, setting: dict[str, Any], bench: Bench) -> nn.Module:
    """The largest network within a share of the FLOPs, by bisection of the pruning ratio."""
    shape = bench.scene.data.input_shape
    limit = size * count_macs_and_params(network, shape)[0]
    low, high = 0.0, MOST
    best = pruned(network, high, setting, bench)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = pruned(network, middle, setting, bench)
        if count_macs_and_params(found, shape)[0] <= limit:
            high, best = middle, found
        else:
            low = middle
    return best


def pruned(network: nn.Module, ratio: float, setting: dict[str, Any], bench: Bench) -> nn.Module:
    """A copy with this ratio of the channels within blocks removed."""
    import torch_pruning as tp
    from torch_pruning.pruner.algorithms.base_pruner import BasePruner

    importances: dict[str, Callable[[], Any]] = {
        "taylor": tp.importance.GroupTaylorImportance,
        "norm": partial(tp.importance.GroupMagnitudeImportance, p=2),
    }
    small = copy.deepcopy(network)
    for mine, whole in zip(small.parameters(), network.parameters(), strict=True):
        mine.grad = None if whole.grad is None else whole.grad.clone()
    options = {name: value for name, value in setting.items() if name != "importance"}
    streams = [module for name, module in small.named_modules() if of_stream(name)]
    BasePruner(
        small,
        torch.zeros(1, *bench.scene.data.input_shape),
        importance=importances[setting["importance"]](),
        pruning_ratio=ratio,
        max_pruning_ratio=MOST,
        ignored_layers=streams,
        **options,
    ).step()
    return small


def of_stream(name: str) -> bool:
    """Layers whose outputs are the residual streams or the classes."""
    return name in ("conv1", "linear") or name.endswith(".conv2")
