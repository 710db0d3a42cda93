"""Evaluations with chosen figures."""

from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.policy import POLICY_PRESETS
from paretoprune.spaces.records.evaluation import Evaluation


def evaluation(accuracy=0.9, macs=400, params=40, trial=0):
    return Evaluation(
        trial=trial, accuracy=accuracy, loss=0.1, macs=macs, params=params,
        flops_fraction=macs / 1000, params_fraction=params / 100, epochs=1.0, seconds=1.0,
        policy=POLICY_PRESETS["pruning-at-a-glance"], target=Target(0.4), path=f"trials/{trial}",
    )  # fmt: skip
