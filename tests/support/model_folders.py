"""Folders of small networks without a search: a trial's, a picked one's, a whole run's."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import save, save_file

from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.results.model_folder import write_model_folder
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.channels import channel_map_digest
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.io.atomic_write import write_json_atomic
from paretoprune.spaces.policy.policy import Policy
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.spaces.records.pareto_front import DenseMetrics, Front
from paretoprune.spaces.records.recipe import ModelSource, Recipe
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.pruning.surgery import output_widths, prune_network
from paretoprune.trainers.training.loop import train_model
from paretoprune.trainers.training.optimizer import TrainingSettings


def random_mask(channel_map, share=0.67, seed=0):
    """A mask that leaves every group something."""
    keep = np.random.default_rng(seed).random(channel_map.atoms) < share
    for group in range(len(channel_map.groups)):
        keep[np.flatnonzero(channel_map.group_of == group)[0]] = True
    return keep


def save_cut(folder, name, shape, classes=10, model=None, seed=0, share=0.67):
    """Cut a random third of a network and write it as a trial does."""
    torch.manual_seed(1)
    dense = model or build_model(name, classes=classes, input_shape=shape, seed=1)
    copy, _ = make_working_copy(dense)
    channel_map = trace_channel_map(copy, shape)
    keep = random_mask(channel_map, share, seed)
    small = prune_network(copy, channel_map, keep)
    weights = save({k: v.contiguous() for k, v in small.state_dict().items()})
    recipe = Recipe(
        ModelSource(None if model else name, classes, shape), len(keep),
        tuple(int(a) for a in np.flatnonzero(~keep)), channel_map_digest(channel_map),
        hashlib.sha256(weights).hexdigest(), Policy("l2"), Target(0.5), 0,
        widths=output_widths(channel_map, keep), versions={"paretoprune": "0", "torch": "0"},
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(weights)
    write_json_atomic(folder / "recipe.json", recipe.to_json())
    return small


def trained_digits():
    """The digits network after a short training, and its data."""
    data = load_data("digits")
    model = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=1)
    train_model(model, data, TrainingSettings(epochs=6, learning_rate=0.1, distill=0), seed=0)
    return model.eval(), data


def make_run(folder, model, data, shares=(0.5, 0.7, 0.9)):
    """A finished run with one trial a share: real networks and figures, no search."""
    folder.mkdir()
    copy, _ = make_working_copy(model)
    price = CostModel(trace_channel_map(copy, (1, 8, 8)))
    dense = DenseMetrics(evaluate(copy, data.validation, data).accuracy, *price.dense, 0.9, 0.4)
    points = []
    for trial, share in enumerate(shares):
        path = folder / "trials" / str(trial)
        small = save_cut(path, "digits-resnet", (1, 8, 8), model=model, share=share)
        recipe = json.loads((path / "recipe.json").read_text())
        recipe["source"]["name"] = "digits-resnet"
        write_json_atomic(path / "recipe.json", recipe)
        keep = np.ones(recipe["atoms"], bool)
        keep[recipe["removed"]] = False
        macs, params = map(int, price.cost_of(keep))
        score = evaluate(small, data.validation, data)
        points.append(Evaluation(
            trial, score.accuracy, score.loss, macs, params, macs / dense.macs,
            params / dense.params, 1.0, 1.0, Policy("l2"), Target(0.5), f"trials/{trial}",
            latency_ms=0.1 + trial / 10,
        ))  # fmt: skip
    front = Front(0, Target(0.5), dense, tuple(points), None, {})
    write_json_atomic(folder / "front.json", front.to_json())
    settings = replace(SearchSettings(), target_flops="0.5").to_json()
    config = {"schema": 1, "settings": settings, "model_given": False, "data_given": False,
              "data_sha256": "", "plugins": []}  # fmt: skip
    write_json_atomic(folder / "config.json", config)
    save_file({k: v.contiguous() for k, v in copy.state_dict().items()},
              folder / "dense.safetensors")  # fmt: skip
    return front


def pick_into(out, run, front, trial=1):
    """The picked folder of one trial."""
    write_model_folder(run, front.points[trial], front.dense, out)
    return out
