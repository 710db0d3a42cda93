"""How many policies a second of one core's time are decoded and priced.

python benchmarks/decode.py [--out decode.json]

Random policies over all registered scores of the weights, combinations, normalisations, stages,
prices and floors; targets from 0.2 to 0.9 of the MACs. `static` divides by the dense network's
prices, `present` by those of the network as it shrinks; `rounded` is static, in multiples of 8.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from paretoprune.spaces.allocations.decode import PruningSpace, decode_policies
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.layer_scores import LayerScores
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import COMBINATIONS, NORMALISATIONS, Policy
from paretoprune.trainers.models.zoo.resnet import resnet20, resnet56

NETWORKS = {"resnet20": resnet20, "resnet56": resnet56}
NORMS = {"l1": 1, "l2": 2, "max": float("inf")}


def weight_scores(model: torch.nn.Module, channel_map: ChannelMap) -> dict[str, LayerScores]:
    """A norm of each filter, a part for each layer of an atom: no data needed."""
    found: dict[str, list[LayerScores]] = {name: [] for name in NORMS}
    for index, layer in enumerate(channel_map.layers):
        own = layer.out_atoms >= 0
        if layer.kind != "conv" or not own.any():
            continue
        parameter = model.get_submodule(layer.name).get_parameter("weight")
        weight = parameter.detach().double().flatten(1)
        for name, order in NORMS.items():
            value = torch.linalg.vector_norm(weight, order, dim=1).numpy()[own]
            atoms = layer.out_atoms[own]
            found[name].append(
                LayerScores(value, atoms, np.full(len(atoms), index, dtype=np.int32))
            )
    return {
        name: LayerScores(
            np.concatenate([p.value for p in parts]),
            np.concatenate([p.atom for p in parts]),
            np.concatenate([p.layer for p in parts]),
        )
        for name, parts in found.items()
    }


def random_policy(rng: np.random.Generator) -> Policy:
    """A static policy, from the whole space of the global threshold."""
    stages = tuple(rng.uniform(0.5, 2.0, 6).tolist()) if rng.random() < 0.5 else ()
    return Policy(
        score=str(rng.choice(list(NORMS))),
        combine=str(rng.choice(COMBINATIONS)),
        normalisation=str(rng.choice(NORMALISATIONS)),
        stages=stages,
        price_power=float(rng.random()),
        price_blend=float(rng.random()),
        floor=int(rng.integers(1, 4)),
    )


def rate(
    policies: list[Policy], targets: list[Target], evidence: Measurements, space: PruningSpace
) -> float:
    """Policies decoded and priced a second of the processor's time; the best of three."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        masks, reachable = decode_policies(policies, targets, evidence, space)
        prices = space.cost_model.cost_of(masks)
        seconds.append(time.process_time() - start)
    limits = np.array([target.limits(space.cost_model.dense)[0] for target in targets])
    assert (prices[reachable, 0] <= limits[reachable]).all()
    return len(policies) / min(seconds)


def measure(name: str, count: int) -> dict[str, float]:
    """The three rates of one network."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = NETWORKS[name]()
    channel_map = trace_channel_map(model, (3, 32, 32))
    evidence = Measurements("", weight_scores(model, channel_map))
    space = PruningSpace(channel_map, CostModel(channel_map))
    policies = [random_policy(rng) for _ in range(count)]
    targets = [Target(float(share)) for share in rng.uniform(0.2, 0.9, count)]
    present = [replace(policy, price_at="present") for policy in policies]
    return {
        "atoms": channel_map.atoms,
        "groups": len(channel_map.groups),
        "static": rate(policies, targets, evidence, space),
        "present": rate(present, targets, evidence, space),
        "rounded": rate(policies, targets, evidence, replace(space, round_to=8)),
    }


def main() -> None:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--policies", type=int, default=6000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    print(f"{'policies/s':12s} {'static':>9s} {'present':>9s} {'rounded':>9s}")
    for name in NETWORKS:
        row = found[name] = measure(name, options.policies)
        print(f"{name:12s} " + " ".join(f"{row[k]:9,.0f}" for k in list(row)[2:]))
    if options.out:
        record = {
            "schema": 1,
            "numpy": np.__version__,
            "clock": "processor time, one thread",
            "policies": options.policies,
            "networks": found,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
