"""A trial store on a small plan, and made-up results for its trials."""

import numpy as np

from paretoprune.search.optimizer.plan import PlannedTrial, derive_seed
from paretoprune.search.optimizer.proposer import Proposer, never_mutate
from paretoprune.search.optimizer.search_space import PolicySpace
from paretoprune.search.optimizer.search_spec import SearchSpec
from paretoprune.search.optimizer.trial_store import TrialStore
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.spaces.records.pareto_front import DenseMetrics

TARGET = Target(flops=0.4)


SPACE = PolicySpace(("l2", "mean-abs-weight", "taylor"), stages=2)


def open_ledger(
    path, slots=4, *, look=lambda policy, target: None, initial=(), vary=never_mutate,
    sampler="tpe", **asked,
):  # fmt: skip
    plan = [PlannedTrial(i, TARGET if i % 2 == 0 else Target(flops=0.5)) for i in range(slots)]
    proposer = Proposer(SPACE, dict(initial), look, sampler, 0, vary)
    store = TrialStore(path, SearchSpec(plan, TARGET, 0, **asked), proposer)
    store.set_summary(DenseMetrics(0.9, 1000, 100))
    return store


def measured(spec):
    rng = np.random.default_rng(derive_seed(spec.seed, spec.slot))
    flops = float(spec.target.flops)
    return Evaluation(
        trial=spec.number, accuracy=float(rng.random()), loss=1.0, macs=int(1000 * flops),
        params=50, flops_fraction=flops, params_fraction=0.5, epochs=1.0, seconds=0.1,
        policy=spec.policy, target=spec.target, path=f"trials/{spec.folder}",
        origin=spec.origin,
    )  # fmt: skip


def run_to_the_end(store):
    specs = []
    while spec := store.next_trial():
        specs.append(spec)
        store.finish(spec, measured(spec), {})
    return specs
