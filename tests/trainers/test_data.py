"""Data: loading, splitting, streaming, caching and the errors for invalid data."""

from __future__ import annotations

import io
import pickle
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from paretoprune.spaces.errors import UserError
from paretoprune.trainers.data.batches import iterate_batches, select_rows
from paretoprune.trainers.data.cache import cache_folder, clear_cache, load_data_arrays, save_data
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.sources.options import LoadOptions
from paretoprune.trainers.data.sources.user import convert_user_data
from paretoprune.trainers.data.splits import DataSplits, Split, normalize_images
from paretoprune.trainers.data.stratified import stratified_split


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETOPRUNE_CACHE", str(tmp_path / "cache"))


def make_folder(root: Path, *, parts: tuple[str, ...] = ("train", "test"), size: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(20):
                pixels = rng.integers(0, 100, (size, size, 3)) + 100 * label
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / part / name / f"{i:02}.png")
    return root


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname="data")
    return archive


def counts(split: Split) -> list[int]:
    return torch.bincount(split.labels).tolist()


def test_digits_are_split_60_20_20_by_class_with_fixed_test_rows() -> None:
    a, b = load_data("digits", seed=0), load_data("digits", seed=1)
    assert (len(a.train), len(a.validation)) == (1078, 360)
    assert a.test is not None
    assert b.test is not None
    assert torch.equal(a.test.images, b.test.images)
    assert not torch.equal(a.validation.images, b.validation.images)
    assert max(counts(a.validation)) - min(counts(a.validation)) <= 2


def test_a_stratified_split_takes_its_share_of_every_class_without_overlap() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 1])
    stay, away = stratified_split(labels, 0.1, rng=np.random.default_rng(0))
    assert np.bincount(labels[away], minlength=3).tolist() == [10, 5, 0]
    assert sorted([*stay, *away]) == list(range(151))


def test_normalised_training_images_have_mean_zero_and_std_one() -> None:
    data = load_data("digits")
    images = normalize_images(data.train.images, data)
    assert abs(float(images.mean())) < 1e-3
    assert abs(float(images.std()) - 1) < 1e-3


def test_a_folder_of_small_images_is_read_without_resizing(tmp_path: Path) -> None:
    data = load_data(f"folder:{make_folder(tmp_path / 'd')}")
    assert data.input_shape == (3, 12, 12)
    assert (counts(data.train), counts(data.validation)) == ([18, 18], [2, 2])
    assert data.test is not None
    first = np.asarray(Image.open(tmp_path / "d/test/cat/00.png"))
    assert np.array_equal(data.test.images[0].permute(1, 2, 0).numpy(), first)


def test_val_is_the_validation_split_only_beside_test(tmp_path: Path) -> None:
    both = load_data(f"folder:{make_folder(tmp_path / 'a', parts=('train', 'val', 'test'))}")
    one = load_data(f"folder:{make_folder(tmp_path / 'b', parts=('train', 'val'))}")
    assert (len(both.train), len(both.validation)) == (40, 40)
    assert one.test is not None
    assert (len(one.train), len(one.validation), len(one.test)) == (36, 4, 40)


def test_archive_equals_its_folder_and_is_decoded_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d")
    archive = pack(folder, tmp_path / "d.tar.gz")
    plain = load_data(f"folder:{folder}")
    packed = load_data(f"folder:{archive}")
    assert torch.equal(plain.train.images, packed.train.images)
    stored = sorted((cache_folder() / "arrays").glob("*/train_images.npy"))
    times = [file.stat().st_mtime_ns for file in stored]
    load_data(f"folder:{archive}")
    assert [file.stat().st_mtime_ns for file in stored] == times
    assert not list((cache_folder() / "unpacked").glob("*"))
    clear_cache()
    assert not (cache_folder() / "arrays").exists()


def test_archive_that_writes_outside_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("../../outside.txt")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"no"))
    with pytest.raises(UserError, match=r"evil.tar.gz which does not unpack"):
        load_data(f"folder:{archive}")
    assert not list(tmp_path.rglob("outside.txt"))


@pytest.mark.parametrize("form", ["gz", "xz", "bz2"])
def test_a_damaged_archive_raises_one_line_and_leaves_no_files(form: str, tmp_path: Path) -> None:
    archive = tmp_path / f"d.tar.{form}"
    with tarfile.open(archive, f"w:{form}") as tar:
        tar.add(make_folder(tmp_path / "d"), arcname="d")
    content = bytearray(archive.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"which does not unpack"):
        load_data(f"folder:{archive}")
    assert not list((cache_folder() / "unpacked").glob("*"))


def test_an_archive_larger_than_the_disk_is_refused_at_once(tmp_path: Path) -> None:
    archive = tmp_path / "vast.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("vast")
        member.size = 2**50
        tar.fileobj.write(member.tobuf())
        tar.fileobj.truncate(2**20)
    with pytest.raises(UserError, match="vast"):
        load_data(f"folder:{archive}")
    assert not list((cache_folder() / "unpacked").glob("*"))


def test_changed_folder_is_read_again(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d")
    before = load_data(f"folder:{folder}")
    Image.new("RGB", (12, 12)).save(folder / "train/cat/99.png")
    assert len(load_data(f"folder:{folder}").train) == len(before.train) + 1


def test_folder_beyond_the_memory_limit_streams_the_same_images(tmp_path: Path) -> None:
    name = f"folder:{make_folder(tmp_path / 'd')}"
    kept = load_data(name)
    clear_cache()  # arrays that are already there are mapped, whatever the limit
    streamed = load_data(name, reading=LoadOptions(memory_limit=100, workers=2))
    assert streamed.train.image_files is not None
    assert len(streamed.train) == len(kept.train)
    pairs = [list(iterate_batches(d.train, d, batch_size=16)) for d in (kept, streamed)]
    for (x, y), (u, v) in zip(*pairs, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    rows = torch.tensor([3, 1])
    assert torch.equal(select_rows(streamed.train, rows).images, kept.train.images[rows])


def test_streamed_crops_depend_on_the_seed_not_on_the_workers(tmp_path: Path) -> None:
    name = f"folder:{make_folder(tmp_path / 'd', size=40)}"

    def first(workers: int, seed: int) -> torch.Tensor:
        data = load_data(name, reading=LoadOptions(memory_limit=1, workers=workers))
        generator = torch.Generator().manual_seed(seed)
        return next(
            iterate_batches(
                data.train, data, batch_size=9, generator=generator, augment="flip-crop"
            )
        )[0]

    assert torch.equal(first(0, 1), first(2, 1))
    assert not torch.equal(first(0, 1), first(0, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_streamed_image_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    folder = make_folder(tmp_path / "d")
    data = load_data(f"folder:{folder}", reading=LoadOptions(memory_limit=1, workers=workers))
    for file in (folder / "train").rglob("*.png"):
        file.write_bytes(b"spoilt since")
    with pytest.raises(UserError, match=r"^every image must be readable, got .*png") as caught:
        list(iterate_batches(data.train, data, batch_size=4))
    assert "\n" not in str(caught.value)


def test_large_or_mixed_images_are_cropped_to_the_default_size(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d")
    Image.new("RGB", (300, 400)).save(folder / "train/cat/00.png")
    assert load_data(f"folder:{folder}").input_shape == (3, 224, 224)
    small = load_data(f"folder:{folder}", reading=LoadOptions(image_size=32))
    assert small.input_shape == (3, 32, 32)


def test_augmented_batches_are_shifted_and_mirrored_originals() -> None:
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(200, 1, 8, 8) + 1
    split = Split(images, torch.zeros(200, dtype=torch.int64))
    data = DataSplits("x", split, split, None, 1, (0.0,), (1.0,), (1, 8, 8))
    generator = torch.Generator().manual_seed(0)
    seen = next(
        iterate_batches(split, data, batch_size=200, generator=generator, augment="flip-crop")
    )[0]
    centre = {tuple((row * 255).round().int().tolist()) for row in seen[:, 0, 4, 3:5]}
    plain = [
        a[0, r, c : c + 2].int().tolist() for a in images[:1] for r in (3, 4, 5) for c in (2, 3, 4)
    ]
    flipped = [
        a[0, r, c : c + 2].int().tolist()[::-1]
        for a in images[:1]
        for r in (3, 4, 5)
        for c in (2, 3, 4)
    ]
    assert centre == {tuple(pair) for pair in plain + flipped}


def broken(folder: Path) -> str:
    (folder / "train/dog/03.png").write_bytes(b"not an image")
    return "every image must be readable, got .*dog/03.png"


def empty(folder: Path) -> str:
    for file in (folder / "train/dog").iterdir():
        file.unlink()
    return "every class needs an image, got .*train/dog"


def stranger(folder: Path) -> str:
    (folder / "test/bird").mkdir()
    return "every class must occur in train, got .*test/bird"


def single(folder: Path) -> str:
    (folder / "train/dog").rename(folder / "dog")
    return "at least two classes, got 1 in .*train"


def trainless(folder: Path) -> str:
    (folder / "train").rename(folder / "training")
    return "needs a train/ directory"


@pytest.mark.parametrize("harm", [broken, empty, stranger, single, trainless])
def test_invalid_folders_raise_an_error_of_one_line(tmp_path: Path, harm) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder(tmp_path / "d")
    with pytest.raises(UserError, match=harm(folder)) as caught:
        load_data(f"folder:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "data must be one of digits, cifar10:DIR"),
        ("folder:/no/such/place", "got /no/such/place where there is nothing"),
        ("folder", "needs its directory"),
        ("no_such_module:data", "'no_such_module' which is not found"),
    ],
)
def test_an_unknown_name_raises_an_error_that_lists_the_sources(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_data(name)


def test_torchvision_directory_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a directory that holds cifar-10-batches-py/"):
        load_data(f"cifar10:{tmp_path}")
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match="CIFAR10 files must be intact"):
        load_data(f"cifar10:{tmp_path}")


X = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


@pytest.mark.parametrize(
    "given",
    [
        ((X, Y), (X, Y)),
        ((X.numpy(), Y.numpy()), (X.numpy(), Y.numpy())),
        (TensorDataset(X, Y), TensorDataset(X, Y)),
        (DataLoader(TensorDataset(X, Y), 7), DataLoader(TensorDataset(X, Y), 7)),
    ],
    ids=["tensors", "arrays", "datasets", "loaders"],
)
def test_every_accepted_form_of_user_data_is_read_unchanged(given: object) -> None:
    data = convert_user_data(given)
    assert torch.equal(data.train.images, X)
    assert torch.equal(data.validation.labels, Y)
    assert (data.classes, data.input_shape, data.mean, data.std) == (3, (1, 4, 4), (0.0,), (1.0,))
    assert torch.equal(normalize_images(X, data), X)


@pytest.mark.parametrize("given", [(X, Y), TensorDataset(X, Y), ((X, Y),)])
def test_missing_validation_is_split_off_from_train(given: object) -> None:
    data = convert_user_data(given)
    assert counts(data.train) == [18, 18, 18]
    assert counts(data.validation) == [2, 2, 2]


class Ragged(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images of two sizes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(1, 4, 4 + index % 2), index % 2


class Torn(Ragged):
    """An image that cannot be read."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 3:
            raise OSError("image 3 is torn")
        return torch.zeros(1, 4, 4), index % 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("text", "data must be .*, got str"),
        (((X, Y), (X[:, :, :3], Y)), "images of one shape"),
        (((X, Y), (X, Y + 1)), "every class must occur in train, got 3 only elsewhere"),
        (((X, Y.float()), (X, Y)), "labels must be one class index"),
        (((X, Y[:5]), (X, Y)), "one label per image, got 60 images and 5 labels"),
        (((X, Y), (X, Y + 1)), "or correct its label"),
        (Ragged(), r"images of one shape, got RuntimeError: .*; fix it"),
        (Torn(), r"got OSError: image 3 is torn \(test_data.py:\d+\); fix it"),
    ],
)
def test_wrong_user_data_is_refused(given: object, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        convert_user_data(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_image_that_is_not_finite_is_named(place: int, value: float) -> None:
    splits = [(X.clone(), Y) for _ in range(3)]
    splits[place][0][41, 0, 2, 1] = value
    name = ("train", "validation", "test")[place]
    with pytest.raises(UserError, match=f"must be finite, got {value} in image 41 of {name};"):
        convert_user_data(splits)
    with pytest.raises(UserError, match=f"image 41 of {name};"):
        convert_user_data(
            replace(convert_user_data([(X, Y)] * 3), **{name: Split(*splits[place])})
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", r"data='{}:f' must import, got SyntaxError: invalid syntax \({}.py:1\)"),
        ("import no_such_part\n", r"must import, got ModuleNotFoundError: .* \({}.py:1\); fix"),
        (
            "def f():\n    raise KeyError('x')\n",
            r"must build, got KeyError: 'x' \({}.py:2\);",
        ),
        ("def f(width):\n    pass\n", "may take seed, got a parameter 'width' without a default"),
    ],
)
def test_an_error_in_the_users_module_is_one_line_with_file_and_line(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"faulty_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UserError, match=words.format(name, name)) as caught:
        load_data(f"{name}:f")
    assert "\n" not in str(caught.value)


def test_the_users_function_gets_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "import torch\ndef make(seed):\n    return torch.full((9, 1, 2, 2), float(seed)), "
    (tmp_path / "my_own_data.py").write_text(lines + "torch.arange(9) % 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert float(load_data("my_own_data:make", seed=7).train.images[0, 0, 0, 0]) == 7


def test_a_split_is_pickled_out_of_band_so_that_workers_share_one_copy() -> None:
    split = load_data("digits").train
    buffers: list[pickle.PickleBuffer] = []
    plain = pickle.dumps(split, protocol=5, buffer_callback=buffers.append)
    assert len(plain) < 1000
    assert sum(len(b.raw()) for b in buffers) >= split.images.numel()
    back = pickle.loads(plain, buffers=[bytes(b.raw()) for b in buffers])
    assert torch.equal(back.images, split.images)


def test_cached_data_is_memory_mapped(tmp_path: Path) -> None:
    data = load_data("digits")
    save_data(data, tmp_path / "s")
    back = load_data_arrays(tmp_path / "s")
    assert torch.equal(back.train.images, data.train.images)
    assert (back.mean, back.std, back.input_shape) == (data.mean, data.std, data.input_shape)
