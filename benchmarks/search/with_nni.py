"""NNI 3.0: the best of its one-shot pruners by the fine-tune at our target, then all sizes.

Its sparsity is of channels, so that of a size is found by trying. Its `ModelSpeedup` raises an
AttributeError with the torch of today; its masks are cut by our surgery instead, which gives the
network that they stand for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.search.bench import Bench
from benchmarks.search.blocks import streams_kept
from benchmarks.search.with_torch_pruning import GRADIENT_BATCHES, MOST, best_over_sizes
from benchmarks.search.worker import NetworkTask
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.trainers.data.batches import iterate_batches
from paretoprune.trainers.pruning.surgery import prune_network

Keep = NDArray[np.bool_]
MaskAt = Callable[[float], Keep]
PRUNERS = ("TaylorPruner", "L1NormPruner", "FPGMPruner")
RATIOS, BATCH = 401, 128
SETTINGS = [f"{pruner} {scope}" for pruner in PRUNERS for scope in ("global", "local")]


def nni_pruners(bench: Bench) -> dict[str, Any]:
    """Every setting at our target, then the best of them over the grid."""
    import nni

    scene, free = bench.scene, streams_kept(bench.scene)
    price = CostModel(free)
    with bench.scoring():
        masks = {setting: masks_of(setting, free, bench) for setting in SETTINGS}

    def offer(setting: str, size: float) -> None:
        keep = mask_at(size, masks[setting], price)
        share = float(price.cost_of(keep)[0] / price.dense[0])
        network = prune_network(scene.model, free, keep)
        task = NetworkTask(network, share, bench.rules, bench.tuning_seed)
        bench.offer(f"{setting} @ {size}", task, scene)

    return {"version": nni.__version__, "best": best_over_sizes(bench, SETTINGS, offer)}


def masks_of(setting: str, free: ChannelMap, bench: Bench) -> MaskAt:
    """Our mask for each of its sparsities; what it measures is measured once."""
    from nni.compression import pruning

    name, scope = setting.split()
    network = copy.deepcopy(bench.scene.model)
    layers = [group.name for group in free.groups]
    rule: dict[str, Any] = {"op_names": layers, "sparse_ratio": 0.5, "max_sparse_ratio": MOST}
    if scope == "global":
        rule["global_group_id"] = "all"
    steps = max(1, min(GRADIENT_BATCHES, len(bench.scene.data.train) // BATCH))
    given = (
        {"evaluator": evaluator(network, bench), "training_steps": steps}
        if name == "TaylorPruner"
        else {}
    )
    pruner = getattr(pruning, name)(network, [rule], **given)
    measure, measured = pruner._calculate_metrics, []

    def metrics(seen: Any) -> Any:
        measured.append(measure(seen))
        return measured[0]

    pruner._calculate_metrics = metrics
    pruner.compress(None, None)

    def at(ratio: float) -> Keep:
        for targets in pruner._target_spaces.values():  # as its own schedules do
            for target in targets.values():
                target.sparse_ratio = ratio
        found = pruner._generate_sparsity(measured[0])
        keep = np.zeros(free.atoms, dtype=bool)
        for index, layer in enumerate(layers):
            kept = found[layer]["weight"].flatten(1).any(1).numpy()
            keep[np.flatnonzero(free.group_of == index)] = with_one(kept)
        return keep

    return at


def with_one(kept: Keep) -> Keep:
    """A layer of no channels would be no network: its first one stays."""
    if not kept.any():
        kept[0] = True
    return kept


def mask_at(size: float, masks: MaskAt, price: CostModel) -> Keep:
    """The largest of its masks within a share of the FLOPs; more sparsity may cost more."""
    tried = [masks(ratio) for ratio in np.linspace(0, 1, RATIOS)]
    costs = [price.cost_of(keep)[0] for keep in tried]
    within = [n for n, cost in enumerate(costs) if cost <= size * price.dense[0]]
    return tried[max(within, key=lambda n: costs[n])]


def evaluator(network: nn.Module, bench: Bench) -> Any:
    """Shows it a few batches; the learning rate is zero, so that only gradients are made."""
    import nni
    from nni.compression import TorchEvaluator

    data = bench.scene.data
    generator = torch.Generator().manual_seed(bench.seed)

    def show(model: nn.Module, optimizer: Any, step: Any, *_: Any, **__: Any) -> None:
        reader = iterate_batches(data.train, data, batch_size=BATCH, generator=generator)
        for batch in islice(reader, GRADIENT_BATCHES):
            optimizer.zero_grad()
            step(batch, model).backward()
            optimizer.step()

    def loss(batch: tuple[Tensor, Tensor], model: nn.Module) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    network.eval()
    optimizer = nni.trace(torch.optim.SGD)(network.parameters(), lr=0.0)
    return TorchEvaluator(show, optimizer, loss)
