"""A Dataset or DataLoader is read completely, with warnings about what one pass loses."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

import paretoprune as pp
from paretoprune.search.cli.app import main
from paretoprune.spaces.errors import UserError
from paretoprune.trainers.data.sources.user import convert_user_data

X = torch.rand(130, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(130) % 3
TABLE = TensorDataset(X, Y)
OTHER = (torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(1)), torch.arange(30) % 3)


class Random(Dataset[tuple[Tensor, Tensor]]):
    """Images under a random transform that draws from one of the global generators."""

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(X[index]), Y[index]


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch": lambda image: image.flip(2) if torch.rand(()) < 0.5 else image,
    "numpy": lambda image: image + float(np.random.rand()),  # noqa: NPY002
    "python": lambda image: image.flip(1) if random.random() < 0.5 else image,
}


def mixup(samples: list[Any]) -> tuple[Tensor, Tensor]:
    images, labels = default_collate(samples)
    return 0.7 * images + 0.3 * images[torch.randperm(len(images))], labels


def padded(samples: list[Any]) -> tuple[Tensor, Tensor]:
    images, labels = default_collate(samples)
    return torch.nn.functional.pad(images, (1, 1)), labels


def notes(*parts: object) -> str:
    return "\n".join(convert_user_data(parts).notes)


@pytest.mark.parametrize("source", TRANSFORMS)
def test_random_transforms_raise_a_warning_and_generator_states_are_restored(source: str) -> None:
    train = Random(TRANSFORMS[source])
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    for index in range(len(train)):
        train[index]
    wanted = torch.rand(()), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    told = convert_user_data((DataLoader(train, 50, generator=torch.Generator()), OTHER)).notes
    assert (torch.rand(()), np.random.rand(), random.random()) == wanted  # noqa: NPY002
    (line,) = told
    assert line.startswith("warning: the transforms of train are random, and each image is read")
    assert "\n" not in line


def test_random_transforms_of_a_dataset_and_of_validation_raise_a_warning() -> None:
    told = notes(TABLE, Random(TRANSFORMS["torch"]))
    assert "the transforms of validation are random" in told
    assert "of train" not in told


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_that_drops_or_shuffles_is_read_completely_and_in_order(shuffle: bool) -> None:
    loader = DataLoader(TABLE, 100, shuffle=shuffle, drop_last=True)
    data = convert_user_data((loader, OTHER))
    assert torch.equal(data.train.images, X)
    assert data.notes == (
        "train: drop_last of the DataLoader is not applied, all 130 rows are read",
    )
    assert len(next(iter(loader))[0]) == 100  # the user's own is as before


def test_plain_and_shuffled_loaders_have_no_notes() -> None:
    validation = DataLoader(TensorDataset(*OTHER), 7, shuffle=True)
    wide = torch.nn.functional.pad(OTHER[0], (1, 1))
    data = convert_user_data(
        (DataLoader(TABLE, 13, shuffle=True, collate_fn=padded), (wide, OTHER[1]))
    )
    assert data.notes == ()
    assert data.train.images.shape == (130, 1, 4, 6)
    assert convert_user_data((DataLoader(TABLE, 13), validation)).notes == ()


class Custom(DataLoader[Any]):
    """A loader of the user's own, which ends early."""

    def __iter__(self) -> Any:
        return itertools.islice(super().__iter__(), 2)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Rows without an index."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(X[:60], Y[:60], strict=True))


@pytest.mark.parametrize(
    ("loader", "rows", "words"),
    [
        (DataLoader(TABLE, 50, sampler=WeightedRandomSampler([1.0] * 130, 90), drop_last=True),
         90, "warning: the WeightedRandomSampler of train is sampled once: every epoch uses these "
             "90 rows (the dataset has 130); pass the Dataset itself"),
        (DataLoader(TABLE, 50, sampler=RandomSampler(TABLE, replacement=True)),
         130, "warning: the RandomSampler of train is sampled once"),
        (DataLoader(TABLE, 50, sampler=RandomSampler(TABLE, num_samples=40)),
         40, "every epoch uses these 40 rows (the dataset has 130)"),
        (DataLoader(TABLE, 50, sampler=SubsetRandomSampler(range(60)), drop_last=True),
         60, "train: SubsetRandomSampler selects 60 rows, which are read (the dataset has 130)"),
        (DataLoader(TABLE, batch_sampler=[[0, 1, 2], [3, 4, 5]]), 6, "the list of train is"),
        (Custom(TABLE, 30), 60, "the Custom of train is sampled once: every epoch uses these 60"),
        (Stream(), 60, "warning: train is an IterableDataset and is read once: every epoch uses "
                       "these 60 rows"),
        (DataLoader(Stream(), 50, drop_last=True), 50, "uses these 50 rows"),
    ],
)  # fmt: skip
def test_a_sampler_that_is_sampled_once_is_noted(loader: Any, rows: int, words: str) -> None:
    data = convert_user_data((loader, OTHER))
    assert len(data.train) == rows
    assert words in "\n".join(data.notes)
    assert not any("random" in note.partition(",")[0] for note in data.notes)


def test_a_subset_is_read_in_the_order_of_its_indices() -> None:
    rows = [7, 3, 5, 10, 1, 2]
    data = convert_user_data((DataLoader(TABLE, 4, sampler=SubsetRandomSampler(rows)), OTHER))
    assert torch.equal(data.train.images, X[rows])


def test_a_mixing_collate_fn_raises_a_warning_and_soft_labels_are_refused() -> None:
    told = notes(DataLoader(TABLE, 64, shuffle=True, collate_fn=mixup), OTHER)
    assert "warning: the collate_fn of train is random, as mixup and cutmix are" in told
    assert "\n" not in told

    def soft(samples: list[Any]) -> tuple[Tensor, Tensor]:
        images, labels = mixup(samples)
        return images, torch.nn.functional.one_hot(labels, 3).float()

    with pytest.raises(UserError, match="without a collate_fn that mixes labels"):
        convert_user_data((DataLoader(TABLE, 64, collate_fn=soft), OTHER))


class Once(Dataset[tuple[Tensor, Tensor]]):
    """Rows that can be read once."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self.seen:
            raise RuntimeError("read before")
        self.seen.add(index)
        return X[index], Y[index]


def test_a_dataset_that_can_be_read_only_once_is_accepted() -> None:
    assert convert_user_data((Once(), OTHER)).notes == ()


def test_a_plain_batch_sampler_has_no_notes() -> None:
    sampler = BatchSampler(SequentialSampler(TABLE), 50, drop_last=False)
    assert "the dataset's" not in notes(DataLoader(TABLE, batch_sampler=sampler), OTHER)


LINES = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def data():
    images = torch.rand(130, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    train = TensorDataset(images, torch.arange(130) % 10)
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 130, 500)
    return DataLoader(train, 100, sampler=sampler), train
"""
TOLD = "warning: the WeightedRandomSampler of train is sampled once: every epoch uses these 500"


def test_warnings_are_shown_in_python_and_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weighted_data.py").write_text(LINES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    words = ["prune", "--policy", "uniform", "--data", "weighted_data:data", "--out", "a"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--target-flops", "0.00001"])  # refused once the data are read
    assert ended.value.code == 2
    assert TOLD in capfd.readouterr().out

    import weighted_data  # type: ignore[import-not-found]

    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 12))
    with pytest.raises(UserError, match=r"^target_flops must be at least"):
        pp.prune(model, weighted_data.data(), "uniform", target_flops=0.00001, out="b")
    said = capfd.readouterr().out
    assert TOLD in said
    assert "warning: the network scores 12 classes, the data have 10" in said
