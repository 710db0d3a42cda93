"""CIFAR-10 (JPEG q75) for benchmarks: where it lies, and how its splits stay clean.

The published ResNet-20 and ResNet-56 were trained on all 50,000 training images, so nothing cut
from train is clean for them. `halved` gives them one half of the test images to choose by and the
other half to report; say so beside every figure. Use it as `--data benchmarks.cifar_jpeg:halved`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.data.stratified import stratified_split

ROOT = Path(__file__).resolve().parent.parent
NAME = "cifar10-jpeg.tar.gz"
HALVES_SEED = 0


def archive() -> Path:
    """The archive in PARETOPRUNE_DATA (default: ../shared/data beside the repo)."""
    return Path(os.environ.get("PARETOPRUNE_DATA", ROOT.parent / "shared" / "data")) / NAME


def weights_folder() -> Path:
    """The published weights in PARETOPRUNE_WEIGHTS (default: ../shared/weights)."""
    return Path(os.environ.get("PARETOPRUNE_WEIGHTS", ROOT.parent / "shared" / "weights"))


def whole() -> DataSplits:
    """45,000 to train, 5,000 to choose, 10,000 to report: for networks trained on this split."""
    return replace(load_data(f"folder:{archive()}"), augment="flip-crop")


def halved() -> DataSplits:
    """45,000 to train, 5,000 test images to choose by, the other 5,000 to report."""
    data = whole()
    assert data.test is not None
    report, choose = stratified_split(
        data.test.labels.numpy(), 0.5, rng=np.random.default_rng(HALVES_SEED)
    )

    def rows(part: np.ndarray) -> Split:
        assert data.test is not None
        index = torch.from_numpy(part)
        return Split(data.test.images[index], data.test.labels[index])

    return replace(data, validation=rows(choose), test=rows(report))
