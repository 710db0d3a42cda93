"""What torch-pruning's dependency graph does on each family, beside our trace.

    python benchmarks/torch_pruning_graph.py [--out graph.json] [--limit 60] [NETWORK ...]

Build its graph, enumerate its groups, cut random channels of every group, run the result.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from types import FrameType

import numpy as np
import torch
import torch_pruning as tp
import torchvision
from torch import nn

from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.models.zoo.resnet import resnet56

SIZES = {"resnet56": 32, "inception_v3": 128, "vit_b_16": 224, "swin_t": 224}
NETWORKS = [
    "resnet56",
    "resnet18",
    "resnet50",
    "vgg16_bn",
    "resnext50_32x4d",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "squeezenet1_1",
    "googlenet",
    "inception_v3",
    "shufflenet_v2_x1_0",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
]


class OutOfTimeError(Exception):
    """A step took longer than its limit."""


def _ring(number: int, frame: FrameType | None) -> None:
    raise OutOfTimeError


def built(name: str) -> nn.Module:
    """The network with random weights."""
    if name == "resnet56":
        return resnet56().eval()
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **options).eval()


def classifier(model: nn.Module) -> nn.Module:
    """The last layer with weights."""
    kinds = (nn.Linear, nn.Conv2d)
    return [m for m in model.modules() if isinstance(m, kinds)][-1]


def cut_at_random(graph: tp.DependencyGraph, head: nn.Module) -> None:
    """Cut about 40 % of each group's channels, any of them, as a search would."""
    rng = np.random.default_rng(0)
    for group in graph.get_all_groups(ignored_layers=[head]):
        root, channels = group[0].dep, len(group[0].idxs)
        gone = np.flatnonzero(rng.random(channels) < 0.4)[: channels - 1].tolist()
        graph.get_pruning_group(root.target.module, root.handler, gone or [0]).prune()


def measure(name: str, limit: int) -> dict[str, float | str]:
    """Seconds for graph and groups, what became of the cut network, seconds of our trace."""
    size = SIZES.get(name, 64)
    x = torch.randn(1, 3, size, size)
    row: dict[str, float | str] = {}
    model = built(name)
    step = "graph"
    signal.alarm(limit)
    try:
        start = time.perf_counter()
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=x)
        row["graph"] = time.perf_counter() - start
        step, start = "groups", time.perf_counter()
        row["number"] = len(list(graph.get_all_groups(ignored_layers=[classifier(model)])))
        row["groups"] = time.perf_counter() - start
        step = "cut"
        cut_at_random(graph, classifier(model))
        step = "forward"
        with torch.no_grad():
            model(x)
        row["verdict"] = "runs"
    except OutOfTimeError:
        row["verdict"] = f"no end of {step} in {limit} s"
    except Exception as error:
        row["verdict"] = f"{step}: {type(error).__name__}: {str(error).splitlines()[0][:70]}"
    signal.alarm(0)
    copied, _ = make_working_copy(built(name))
    start = time.perf_counter()
    trace_channel_map(copied, (3, size, size))
    return {**row, "ours": time.perf_counter() - start}


def main() -> None:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _ring)
    found = {}
    print(f"{'network':20s} {'graph s':>8s} {'groups s':>8s} {'ours s':>7s}  cut at random")
    for name in options.networks:
        row = found[name] = measure(name, options.limit)
        graph, groups = (f"{row[k]:.2f}" if k in row else "-" for k in ("graph", "groups"))
        print(f"{name:20s} {graph:>8s} {groups:>8s} {row['ours']:7.2f}  {row['verdict']}")
    if options.out:
        record = {"schema": 1, "torch_pruning": tp.__version__, "networks": found}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
