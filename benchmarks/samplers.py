"""Optuna's samplers alone: every trial is the sampler's, no policy is proposed by anything else.

    python -m benchmarks.samplers [--seeds 3] [--trials 128]

The ledger, the plan, the policy space (what is cut at once) and the repeats are those of a search
of ResNet-20 for 0.4 of the FLOPs, one worker. A trial is rehearsed in place of trained: its
network is cut and looked at untrained. In place of accuracy stands what the cross entropy makes of
the right class, exp(-loss), so that hypervolumes lie in [0, 1].
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cells import fill
from benchmarks.rehearsal import Bench, bench_on
from benchmarks.scene import baseline
from paretoprune.analysis.measure import ignore_progress
from paretoprune.analysis.untrained_loss import evaluate_untrained
from paretoprune.search.config.settings import SAMPLER_NAMES
from paretoprune.search.optimizer.plan import make_plan
from paretoprune.search.optimizer.proposer import Proposer, predict_policy
from paretoprune.search.optimizer.search_spec import SearchSpec
from paretoprune.search.optimizer.trial_store import TrialStore
from paretoprune.search.storage.trial_spec import TrialSpec
from paretoprune.spaces.allocations.decode import decode_policy
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.spaces.records.pareto_front import DenseMetrics, front_hypervolume

OUT = Path("benchmarks/results/samplers.json")
TARGET = Target(flops=0.4)
AFTER = (32, 64, 128)  # finished slots, at which the front is measured


def searched(on: Bench, sampler: str, seed: int, trials: int) -> dict[str, Any]:
    """One search; hypervolumes on its way, and the least loss at the target."""
    space = replace(on.policies, schedules=("one-shot",))
    plan = make_plan(trials, TARGET, on.scene.space)
    proposer = Proposer(space, {}, partial(predict_policy, on.screen), sampler, seed)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        ledger = TrialStore(Path(folder) / "journal.log", SearchSpec(plan, TARGET, seed), proposer)
        ledger.set_summary(DenseMetrics(1.0, *on.scene.space.cost_model.dense))
        while job := ledger.next_trial():
            ledger.finish(job, rehearsed(on, job), {})
            slots = ledger.settled - len(ledger.records.controls())
            for after in AFTER:
                if slots >= after and f"hypervolume_{after}" not in found:
                    volume = front_hypervolume(ledger.records.evaluations())
                    found[f"hypervolume_{after}"] = round(volume, 5)
        answer = ledger.front().at_target
        assert answer is not None
        return {
            **found,
            "loss_at_target": answer.loss,
            "repeats": ledger.records.count_duplicates(),
        }


def rehearsed(on: Bench, job: TrialSpec) -> Evaluation:
    """What a trial's network is worth untrained."""
    mask = decode_policy(job.policy, job.target, on.screen.measurements, on.scene.space)
    loss = float(
        evaluate_untrained(mask[None], replace(on.measuring, folder=None), ignore_progress)[0]
    )
    price, dense = on.scene.space.cost_model, on.scene.space.cost_model.dense
    macs, params = (int(part) for part in price.cost_of(mask))
    return Evaluation(
        trial=job.number,
        accuracy=math.exp(-loss),
        loss=loss,
        macs=macs,
        params=params,
        flops_fraction=macs / dense[0],
        params_fraction=params / dense[1],
        epochs=0.0,
        seconds=0.0,
        policy=job.policy,
        target=job.target,
        path=f"trials/{job.folder}",
    )


def show(found: dict[str, Any]) -> None:
    """Means and spreads by sampler."""
    for sampler in SAMPLER_NAMES:
        cells = [c for name, c in found["cells"].items() if name.startswith(f"{sampler} ")]
        for key in (*(f"hypervolume_{after}" for after in AFTER), "loss_at_target", "repeats"):
            values = [cell[key] for cell in cells if key in cell]
            if values:
                mean, spread = statistics.mean(values), statistics.pstdev(values)
                print(f"{sampler:8} {key:16} {mean:.4f} +- {spread:.4f}")


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=max(AFTER))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--max-seconds", type=float)
    options = parser.parse_args()
    scene = baseline("resnet20")
    on = bench_on(scene)
    cells = {
        f"{sampler} seed {seed}": partial(searched, on, sampler, seed, options.trials)
        for seed in range(options.seeds)
        for sampler in SAMPLER_NAMES
    }
    about = {**scene.about, "trials": options.trials}
    show(fill(options.out, about, cells, max_seconds=options.max_seconds))


if __name__ == "__main__":
    main()
