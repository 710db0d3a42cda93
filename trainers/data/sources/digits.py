"""`digits`: scikit-learn's 1,797 handwritten digits, 8x8, one channel; no download."""

from __future__ import annotations

import numpy as np
import torch

from ..splits import DataSplits, Split
from ..stratified import stratified_split
from .options import LoadOptions

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.25  # of the rest, so the splits are 60 / 20 / 20
TEST_SEED = 0  # the test rows do not depend on the user's seed, so results are comparable


def read(name: str, where: str, reading: LoadOptions) -> DataSplits:
    """Load the digits in stratified splits of 60/20/20 percent."""
    from sklearn.datasets import load_digits

    table = load_digits()
    images = torch.from_numpy(np.rint(table.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = np.asarray(table.target, np.int64)
    rest, test = stratified_split(labels, TEST_SHARE, rng=np.random.default_rng(TEST_SEED))
    train_rows, validation_rows = stratified_split(
        labels[rest], VALIDATION_SHARE, rng=np.random.default_rng(reading.seed)
    )

    def split(rows: np.ndarray) -> Split:
        return Split(images[rows].clone(), torch.from_numpy(labels[rows]))

    train = split(rest[train_rows])
    scaled = train.images.float() / 255
    return DataSplits(
        name=name,
        train=train,
        validation=split(rest[validation_rows]),
        test=split(test),
        classes=10,
        mean=(round(float(scaled.mean()), 4),),
        std=(round(float(scaled.std()), 4),),
        input_shape=(1, 8, 8),
    )
