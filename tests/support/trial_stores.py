"""A trial store on a small plan, and made-up results for its trials."""

import numpy as np

from paretoprune.search.optimizer.proposer import Proposer, no_variation
from paretoprune.search.optimizer.search_space import PolicySpace
from paretoprune.search.optimizer.target_plan import Slot, derived_seed
from paretoprune.search.optimizer.trial_queue import Undertaking
from paretoprune.search.optimizer.trial_store import Ledger
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.spaces.records.pareto_front import Dense

TARGET = Target(flops=0.4)


SPACE = PolicySpace(("l2", "mean-abs-weight", "taylor"), stages=2)


def open_ledger(
    path, slots=4, *, look=lambda policy, target: None, opening=(), vary=no_variation,
    sampler="tpe", **asked,
):  # fmt: skip
    plan = [Slot(i, TARGET if i % 2 == 0 else Target(flops=0.5)) for i in range(slots)]
    proposer = Proposer(SPACE, dict(opening), look, sampler, 0, vary)
    ledger = Ledger(path, Undertaking(plan, TARGET, 0, **asked), proposer)
    ledger.set_summary(Dense(0.9, 1000, 100))
    return ledger


def measured(job):
    rng = np.random.default_rng(derived_seed(job.seed, job.slot))
    flops = float(job.target.flops)
    return Evaluation(
        trial=job.number, accuracy=float(rng.random()), loss=1.0, macs=int(1000 * flops),
        params=50, flops_fraction=flops, params_fraction=0.5, epochs=1.0, seconds=0.1,
        policy=job.policy, target=job.target, path=f"trials/{job.folder}",
        origin=job.origin,
    )  # fmt: skip


def run_to_the_end(ledger):
    jobs = []
    while job := ledger.next_job():
        jobs.append(job)
        ledger.finish(job, measured(job), {})
    return jobs
