"""Write a run folder without training: a real journal, recipes and measurements."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from tiny_networks import network_of
from torch import nn

from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.search.storage.trial_records import (
    DENSE_PATH,
    STUDY_NAMES,
    front_from_journal,
    silence_optuna,
)
from paretoprune.search.storage.trial_spec import TrialSpec
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.layout import build_layout
from paretoprune.spaces.io.atomic_write import write_json_atomic
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, POLICY_PRESETS, Policy
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.spaces.records.gate_history import GATE_HISTORY_FILE, GateHistory
from paretoprune.spaces.records.pareto_front import DenseMetrics
from paretoprune.spaces.records.recipe import ModelSource, Recipe

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror=alert(1)>"
TARGET = Target(flops=0.5)
EVIDENCE = [Policy("taylor", allocation="loss-budget"), Policy("ensemble"), Policy("l2")]


def hostile_network():
    """A tiny network with hostile layer names."""
    layers = nn.Sequential()
    layers.add_module(HOSTILE.replace(".", ""), nn.Conv2d(2, 16, 3, padding=1))
    layers.add_module("act", nn.ReLU())
    layers.add_module("second & last", nn.Conv2d(16, 12, 3))
    layers.add_module("act2", nn.ReLU())
    layers.add_module("pool", nn.AdaptiveAvgPool2d(1))
    layers.add_module("flat", nn.Flatten())
    layers.add_module("end", nn.Linear(12, 3))
    return network_of(layers)


class RunWriter:
    """Writes a run trial by trial, with a fixed seed."""

    def __init__(self, folder: Path, network, *, planned=14, space=True):
        silence_optuna()
        self.folder, self.channel_map = folder, network.channel_map
        self.cost_model = CostModel(network.channel_map)
        self.rng = np.random.default_rng(0)
        folder.mkdir(parents=True)
        settings = {"target_flops": "0.5", "model": "evil:build", "data": "evil:data",
                    "trials": planned, "out": str(folder)}  # fmt: skip
        config = {"schema": 1, "version": "0.1.0", "settings": settings, "model_given": False,
                  "data_given": False, "data_sha256": "",
                  "plugins": [{"path": "evil.py", "sha256": ""}]}  # fmt: skip
        write_json_atomic(folder / "config.json", config)
        if space:
            layout = {**build_layout(self.channel_map).to_json(), "versions": {"torch": "2.15"}}
            write_json_atomic(folder / "space.json", layout)
        storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
        self.search, self.controls, self.finals = (
            optuna.create_study(
                storage=storage, study_name=name, directions=["maximize", "minimize", "minimize"]
            )
            for name in STUDY_NAMES
        )
        macs, params = self.cost_model.dense
        self.search.set_user_attr(
            "summary",
            {"seed": 0, "requested": TARGET.to_json(), "dense": dense_json(0.95, macs, params)},
        )

    def policy(self):
        """Draw a policy."""
        return Policy(
            score=str(self.rng.choice(["l2", "taylor"])),
            normalisation=str(self.rng.choice(["none", "max", "rank"])),
            learning_rate=round(float(self.rng.uniform(0.01, 0.05)), 4),
        )

    def add(self, policy=None, control=None, near=None):
        """Add a finished trial or a control; its FLOPs are just below the share `near`."""
        study = self.controls if control else self.search
        trial = study.ask()
        spec = TrialSpec(trial.number, policy or self.policy(), TARGET, 0, number=trial.number)
        if control:
            spec = replace(spec, number=None, control=control, policy=CONTROL_POLICIES[control])
        trial.set_user_attr("job", spec.to_json())
        evaluation = self.evaluate(spec, self.mask(near))
        trial.set_user_attr("evaluation", evaluation.to_json())
        study.tell(trial, list(evaluation.objectives))
        return evaluation

    def mask(self, near):
        """Draw a mask, with FLOPs within 0.02 below the share `near` if it is given."""
        for _ in range(10_000):
            keep = self.rng.random(self.channel_map.atoms) < self.rng.uniform(0.3, 1.0)
            keep[[group.first for group in build_layout(self.channel_map).groups]] = True
            share = self.cost_model.cost_of(keep)[0] / self.cost_model.dense[0]
            if near is None or near - 0.02 < share <= near:
                return keep
        raise AssertionError("no mask is near the target")

    def evaluate(self, spec, keep):
        """Evaluate with the true cost and an accuracy that grows with it; write the recipe."""
        atoms = len(keep)
        macs, params = (int(n) for n in self.cost_model.cost_of(keep))
        shares = macs / self.cost_model.dense[0], params / self.cost_model.dense[1]
        recipe = Recipe(
            ModelSource("evil:build", 3, (2, 6, 6)), atoms, tuple(np.flatnonzero(~keep).tolist()),
            "m", "w", spec.policy, TARGET, 0,
        )  # fmt: skip
        (self.folder / "trials" / spec.folder).mkdir(parents=True)
        write_json_atomic(self.folder / "trials" / spec.folder / "recipe.json", recipe.to_json())
        accuracy = round(0.6 + 0.3 * shares[0] + 0.05 * float(self.rng.random()), 4)
        return Evaluation(
            trial=spec.number, accuracy=accuracy, loss=1 - accuracy, macs=macs, params=params,
            flops_fraction=shares[0], params_fraction=shares[1], epochs=1.0, seconds=2.0,
            policy=spec.policy, target=TARGET, path=f"trials/{spec.folder}",
        )  # fmt: skip

    def fail(self, reason):
        """Add a failed trial."""
        trial = self.search.ask()
        spec = TrialSpec(trial.number, self.policy(), TARGET, 0, number=trial.number)
        trial.set_user_attr("job", spec.to_json())
        trial.set_user_attr("failure", reason)
        self.search.tell(trial, state=TrialState.FAIL)

    def conclude(self):
        """Write front.json with test metrics, as the end of a search does."""
        front = front_from_journal(self.folder / "journal.log")
        figures = {
            point.path: {"test_accuracy": point.accuracy - 0.01, "latency_ms": 1.0 + k / 8}
            for k, point in enumerate(front.points)
        }
        figures[DENSE_PATH] = {"test_accuracy": 0.94, "latency_ms": 2.0}
        self.search.set_user_attr("figures", figures)
        write_json_atomic(
            self.folder / "front.json", front_from_journal(self.folder / "journal.log").to_json()
        )
        return json.loads((self.folder / "front.json").read_text())


def dense_json(accuracy, macs, params):
    dense = DenseMetrics(accuracy, macs, params)
    return {name: getattr(dense, name) for name in DenseMetrics.__slots__}


def falling_course():
    """A history of gates that close evenly."""
    sizes = tuple(np.linspace(1.0, 0.5, 8).round(4).tolist())
    return GateHistory(tuple(range(1, 9)), sizes, (*sizes[:-1], 0.4), 0.5, None, moved=2, atoms=40)


def write_run(folder, *, trials=12, space=True, evidence=False):
    """Write a finished run of a network with hostile names; return the writer and the front."""
    network = hostile_network()
    writer = RunWriter(folder, network, planned=trials + 1, space=space)
    writer.add(near=TARGET.flops)
    for _ in range(trials - 1 - evidence):
        writer.add()
    if evidence:
        gated = writer.add(POLICY_PRESETS["holistic"])
        write_json_atomic(folder / gated.path / GATE_HISTORY_FILE, falling_course().to_json())
    for name in CONTROL_POLICIES:
        writer.add(control=name)
    writer.fail(f"RuntimeError: {HOSTILE}")
    if evidence:
        measure_for_policies(
            EVIDENCE,
            MeasurementContext(
                network.model, network.channel_map, network.data, 0, folder / "evidence"
            ),
        )
    return writer, writer.conclude()
