"""The dense networks that every other benchmark prunes: trained once, named by their sha256.

    python -m benchmarks.baseline [resnet20] [resnet56] [resnet20-brief] [resnet56-brief]
        [vgg16-short] [resnet110-short] [--folder DIR] [--out FILE]

Resumable: kill it and run it again. Weights go to the cache, figures to the JSON; the weights of
the clean ResNet-20, which take an hour or four, lie in `benchmarks/networks` too. It is trained
from scratch on 45,000 images, so its validation split is clean. ResNet-56 is fine-tuned from
published weights that saw all training images: half of the test images choose, the other half
report. Figures of the two kinds do not belong in one table. The brief ones are the same with two
epochs instead of ten, for a slow machine. VGG-16 and ResNet-110 are trained from scratch like
ResNet-20, but for no longer than two hours of a slow core allow: they are far from done.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import cifar_jpeg
from benchmarks.scene import baseline_folder
from paretoprune.trainers.data.splits import DataSplits
from paretoprune.trainers.training.loop import TrainingProgress
from paretoprune.trainers.training.optimizer import TrainingSettings
from paretoprune.trainers.training.train_dense import (
    DenseBaseline,
    DenseTrainingSpec,
    train_dense_baseline,
)

EVERY = tuple(i / 4 for i in range(400))  # reports, and chances to save, within the epochs

FROM_SCRATCH = TrainingSettings(
    epochs=46, learning_rate=0.2, warmup=2 / 46, weight_decay=5e-4, distill=0.0, reports=EVERY
)
FINE_TUNE = replace(FROM_SCRATCH, epochs=10, learning_rate=0.02, warmup=0.05)
BRIEF = replace(FINE_TUNE, epochs=2)
SHORT = replace(FROM_SCRATCH, epochs=4, warmup=0.2)
PUBLISHED = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}

Job = tuple[DenseTrainingSpec, Callable[[], DataSplits], str]


def jobs(folder: Path) -> dict[str, Job]:
    """Each network, the data it is trained on, and what its splits mean."""

    def at(name: str) -> Path:
        return folder / f"{name}.safetensors"

    return {
        "resnet20": from_scratch("resnet20", at("resnet20"), FROM_SCRATCH),
        "resnet56": fine_tuned("resnet56", at("resnet56"), FINE_TUNE),
        "resnet20-brief": fine_tuned("resnet20", at("resnet20-brief"), BRIEF),
        "resnet56-brief": fine_tuned("resnet56", at("resnet56-brief"), BRIEF),
        "vgg16-short": from_scratch("vgg16", at("vgg16-short"), SHORT),
        "resnet110-short": from_scratch("resnet110", at("resnet110-short"), SHORT),
    }


def from_scratch(network: str, path: Path, tuning: TrainingSettings) -> Job:
    """From random weights."""
    job = DenseTrainingSpec(network, "cifar10-jpeg", path, tuning)
    return job, cifar_jpeg.whole, "validation cut from train, test whole"


def fine_tuned(network: str, path: Path, tuning: TrainingSettings) -> Job:
    """From published weights."""
    published = cifar_jpeg.weights_folder() / PUBLISHED[network]
    return (
        DenseTrainingSpec(network, "cifar10-jpeg, test halved", path, tuning, weights=published),
        cifar_jpeg.halved,
        "published weights saw all of train: half of the test images choose, half report",
    )


def tell(name: str) -> Callable[[TrainingProgress], bool]:
    """Print a line at each report."""

    def report(progress: TrainingProgress) -> bool:
        print(
            f"{name} epoch {progress.epoch:.2f} loss {progress.loss:.4f} "
            f"accuracy {progress.accuracy:.4f}, {progress.remaining / 60:.0f} min left",
            flush=True,
        )
        return True

    return report


def record(out: Path, name: str, baseline: DenseBaseline, splits: str) -> None:
    """Put one network's figures into the results, beside those of the others."""
    begun: dict[str, Any] = {"schema": 1, "networks": {}}
    found = json.loads(out.read_text()) if out.exists() else begun
    found["data"] = "CIFAR-10 (JPEG q75)"
    figures = asdict(baseline)
    figures["settings"]["tuning"].pop("reports")
    found["networks"][name] = {**figures, "path": baseline.path.name, "splits": splits}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Train what is asked for, or go on with it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=["resnet56", "resnet20"])
    parser.add_argument("--folder", type=Path, default=baseline_folder())
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/baselines.json"))
    asked = parser.parse_args()
    known = jobs(asked.folder)
    for name in asked.names:
        job, data, splits = known[name]
        baseline = train_dense_baseline(job, data=data(), on_report=tell(name))
        record(asked.out, name, baseline, splits)
        test = baseline.test.accuracy if baseline.test else float("nan")
        print(f"{name} validation {baseline.validation.accuracy:.4f} test {test:.4f}")


if __name__ == "__main__":
    main()
