"""What steers the search: screening and halving. Digits, a small network, deep cuts.

    python -m benchmarks.steering [--seeds 3] [--trials 48] [--target 0.1]

Every cell is one search from the same dense network, one worker, so the same seed gives the same
cell. Work is counted in epochs of fine-tuning, those of stopped trials too. The hypervolume is of
accuracy against FLOPs saved: on validation, which has chosen the front (the more trials end, the
more it is flattered), and on test. `benchmarks.samplers` tells the samplers apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import paretoprune as pp
from benchmarks.cells import fill
from benchmarks.scene import digits_baseline
from paretoprune.search.optimizer.pareto_halving import KEEP_FRACTION
from paretoprune.search.results.screening_quality import screening_correlation
from paretoprune.search.storage.trial_records import TrialRecords, is_duplicate, read_trial_records
from paretoprune.spaces.records.evaluation import Evaluation
from paretoprune.spaces.records.pareto_front import front_hypervolume

OUT = Path("benchmarks/results/steering.json")
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no halving": {"halving": False},
    "no screening": {"screening": False},
    "neither": {"halving": False, "screening": False},
    "twice the trials": {"times": 2},
}
AFTER = (120, 240, 360, 480)  # epochs, at which fronts are compared


@contextmanager
def small_search(
    seed: int, options: argparse.Namespace, *, times: int = 1, **way: Any
) -> Iterator[tuple[pp.Result, TrialRecords]]:
    """One search on digits, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        result = pp.search(
            "digits-resnet",
            "digits",
            target_flops=options.target,
            trials=options.trials * times,
            workers=1,
            seed=seed,
            weights=digits_baseline(seed).path,
            out=run,
            quiet=True,
            **way,
        )
        record = read_trial_records(run / "journal.log")
        assert record is not None
        yield result, record


def searched(way: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One search, its front and its work."""
    with small_search(seed, options, **WAYS[way]) as (result, record):
        answer = result.at_target
        assert answer is not None
        return {
            "hypervolume": round(front_hypervolume(result.points), 5),
            "hypervolume_test": round(front_hypervolume([on_test(p) for p in result.points]), 5),
            "at_target": answer.accuracy,
            "at_target_test": answer.test_accuracy,
            **work_of(record),
            **course_of(record),
            "rank_correlation": screening_correlation(record)[0],
            "pairs": screening_correlation(record)[1],
            "origins": origins(result),
        }


def on_test(point: Evaluation) -> Evaluation:
    """The point with its test accuracy for the validation accuracy."""
    assert point.test_accuracy is not None
    return replace(point, accuracy=point.test_accuracy)


def work_of(record: TrialRecords) -> dict[str, float]:
    """Epochs of fine-tuning, and how many trials came to which end."""
    return {
        "epochs": round(sum(epochs for epochs, _ in ends_of(record)), 2),
        "finished": len(record.evaluations_of("search")),
        "stopped": record.count_stopped(),
        "repeats": record.count_duplicates(),
        "failed": len(record.failures()),
    }


def ends_of(record: TrialRecords) -> Iterator[tuple[float, Evaluation | None]]:
    """The epochs of each trial, in the order of their ends, and what came of it."""
    found = {e.trial: e for e in record.evaluations_of("search")}
    for trial in record.trials("search"):
        if trial.number in found:
            epochs = 0.0 if is_duplicate(trial) else found[trial.number].epochs
            yield epochs, found[trial.number]
        elif "stopped" in trial.user_attrs:
            yield trial.user_attrs["stopped"]["rungs"][-1]["epochs"], None


def course_of(record: TrialRecords) -> dict[str, float]:
    """The hypervolume of what had ended after so many epochs, as far as the search came."""
    spent, finished, found = 0.0, list[Evaluation](), dict[str, float]()
    for epochs, evaluation in ends_of(record):
        spent += epochs
        for after in AFTER:
            if spent > after:
                found.setdefault(f"after_{after}", round(front_hypervolume(finished), 5))
        finished += [evaluation] if evaluation else []
    return found


def origins(result: Any) -> dict[str, int]:
    """Where the front's policies came from."""
    kinds = [str(point.origin).partition(":")[0] for point in result.points]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def show(found: dict[str, Any]) -> None:
    """Means and spreads by way."""
    names = ("hypervolume", "hypervolume_test", "at_target", "at_target_test", "epochs")
    for way in WAYS:
        cells = [c for name, c in found["cells"].items() if name.startswith(f"{way} seed")]
        if cells:
            parts = [
                f"{n} {statistics.mean(values):.4f} +- {statistics.pstdev(values):.4f}"
                for n in (*names, *(f"after_{after}" for after in AFTER))
                if (values := [c[n] for c in cells if n in c])
            ]
            print(f"{way:14}", " ".join(parts))


def options_of_searches(text: str, out: Path) -> argparse.ArgumentParser:
    """How many small searches, how long, to which size, and where their results go."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--target", default="0.1")
    parser.add_argument("--out", type=Path, default=out)
    return parser


def main() -> None:
    """Fill the results file."""
    parser = options_of_searches(__doc__ or "", OUT)
    parser.add_argument("--max-seconds", type=float)
    options = parser.parse_args()
    about = {"trials": options.trials, "target": options.target, "kept": round(KEEP_FRACTION, 3)}
    cells = {
        f"{way} seed {seed}": partial(searched, way, seed, options)
        for seed in range(options.seeds)
        for way in WAYS
    }
    show(fill(options.out, about, cells, max_seconds=options.max_seconds))
    print(json.dumps(about))


if __name__ == "__main__":
    main()
