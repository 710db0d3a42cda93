"""Notes about automatic decisions, and errors for data and weights that would fail later."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import paretoprune as pp
from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.dense_model import build_from_settings
from paretoprune.spaces.errors import UserError
from paretoprune.trainers.data.cache import load_data_arrays, save_data
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.sources.user import convert_user_data
from paretoprune.trainers.models.build import build_model, stock_notes, surplus_notes
from paretoprune.trainers.models.weights import load_weights

X = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
MORE = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(60) % 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETOPRUNE_CACHE", str(tmp_path / "cache"))


def draw(path: Path, *, size: int = 12, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32("/".join(path.parts[-3:]).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(np.full((size, size), 4000, np.uint16))
    (image if mode in ("RGB", "I;16") else image.convert(mode)).save(path)


def folder(root: Path, *parts: str) -> Path:
    for part in parts:
        for name in ("cat", "dog"):
            for i in range(20):
                draw(root / part / name / f"{i:02}.png")
    return root


def told(name: str) -> str:
    found = load_data(name).notes
    assert not any("\n" in note for note in found)
    return "\n".join(found)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((X, Y), "6 of 60 training images are split off from train for it, the same share of"),
        (((X, Y + 1), (MORE, Y + 1)), "1 of 4 classes have no image, label 0 first"),
        (((X, Y * 2), (MORE, Y * 2)), "2 of 5 classes have no image, label 1 first"),
        (((X, Y), (MORE, Y.clamp_max(1))), "1 of 3 classes have no validation image, label 2"),
        (((X, Y), (X, Y)), "warning: validation has the same images as train"),
        (((X, Y), (MORE, Y), (MORE, Y)), "warning: test has the same images as validation"),
        (((torch.rand(9, 8, 8, 3), Y[:9]), (torch.rand(9, 8, 8, 3), Y[:9])),
         "warning: images are read as [channels, height, width], got (8, 8, 3), which is 8 chan"),
    ],
)  # fmt: skip
def test_automatic_decisions_about_arrays_are_noted(given: object, words: str) -> None:
    (note,) = convert_user_data(given).notes
    assert words in note
    assert "\n" not in note


def test_three_valid_splits_have_no_notes() -> None:
    assert convert_user_data(((X, Y), (MORE, Y), (MORE[:30], Y[:30]))).notes == ()


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (X, torch.complex(Y.float(), Y.float()), "labels must be one class index"),
        (X, np.asarray(["cat"] * 60), "labels must be a tensor or an array of numbers, got ndarr"),
        (np.empty((60, 1, 8, 8), object), Y, "images must be a tensor or an array of numbers"),
    ],
)
def test_images_or_labels_that_are_no_numbers_raise_an_error_of_one_line(
    images: object, labels: object, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        convert_user_data((images, labels))
    assert "\n" not in str(caught.value)


def test_views_byte_orders_and_gradients_change_nothing() -> None:
    flipped = X.numpy()[::-1]
    swapped = flipped.astype(flipped.dtype.newbyteorder(">"))
    for images in (flipped, swapped, X.flip(0).requires_grad_()):
        data = convert_user_data(((images, Y), (MORE, Y)))
        assert torch.equal(data.train.images, X.flip(0))
        assert not data.train.images.requires_grad


def test_a_folder_notes_where_validation_comes_from(tmp_path: Path) -> None:
    assert told(f"folder:{folder(tmp_path / 'a', 'train', 'val', 'test')}") == ""
    one = told(f"folder:{folder(tmp_path / 'b', 'train', 'val')}")
    assert "4 of 40 training images are split off from train" in one
    assert one.endswith("; val/ is the test split")
    assert told(f"folder:{tmp_path / 'b'}") == one  # from the cache too
    other = told(f"folder:{folder(tmp_path / 'c', 'train', 'valid')}")
    assert "not read: valid/ beside train/; put validation images in val/" in other


def test_a_folder_notes_skipped_nested_resized_and_converted_images(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", "train", "val", "test")
    (root / "train" / "cat" / "notes.txt").write_text("x")
    (root / "train" / ".DS_Store").write_text("x")
    draw(root / "train" / "stray.png")
    said = told(f"folder:{root}")
    assert "skipped: 2 files that are not images in a class folder" in said
    assert "DS_Store" not in said
    draw(root / "train" / "cat" / "young" / "a.png", size=30, mode="L")
    draw(root / "train" / "cat" / "young" / "b.png", mode="RGBA")
    said = told(f"folder:{root}")
    assert "train/cat/young is class 'cat'" in said
    assert "images are resized: the short side to 256, then cropped to the centre 224x224" in said
    assert "images of mode L, RGBA are converted to RGB; transparency is dropped" in said


def test_sixteen_bits_and_colours_among_grey_images_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "deep", "train", "val", "test")
    draw(root / "train" / "cat" / "x.png", mode="I;16")
    with pytest.raises(UserError, match=r"8 bits a channel, got .*x.png of mode I;16"):
        load_data(f"folder:{root}")
    grey = tmp_path / "grey"
    for path in folder(grey, "train", "val", "test").rglob("*.png"):
        draw(path, mode="L")
    draw(grey / "val" / "cat" / "y.png")
    with pytest.raises(UserError, match=r"grey where most are, got .*y.png of mode RGB"):
        load_data(f"folder:{grey}")


def test_options_that_a_source_does_not_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^download is for cifar10:DIR, .*, got 'digits'"):
        load_data("digits", download=True)
    with pytest.raises(UserError, match="'digits' takes no directory, got 'digits:here'"):
        load_data("digits:here")
    monkeypatch.setenv("PARETOPRUNE_MEMORY_GB", "lots")
    with pytest.raises(UserError, match="must be a number of GiB, got 'lots'; write 8"):
        load_data("digits")


def test_notes_are_stored_with_the_data(tmp_path: Path) -> None:
    data = convert_user_data((X, Y))
    save_data(data, tmp_path / "s")
    assert load_data_arrays(tmp_path / "s").notes == data.notes != ()


def digits_state(seed: int = 0) -> dict[str, Tensor]:
    model = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=seed)
    return dict(model.state_dict())


def test_the_state_dict_that_is_used_is_noted_if_a_file_has_two(tmp_path: Path) -> None:
    first, second = digits_state(1), digits_state(2)
    optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}
    path = tmp_path / "w.pth"
    torch.save({"model": first, "optimizer": optimiser, "epoch": 3}, path)
    model = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)
    assert load_weights(model, path) == ()
    torch.save({"model": first, "model_ema": {"state_dict": second}}, path)
    said: list[str] = []
    settings = SearchSettings(target_flops="0.4", weights=path)
    model = build_from_settings(settings, load_data("digits"), said.append)
    assert said == [
        "weights: 'model' of w.pth is used, 'model_ema' is not; to use another one, save it to "
        "its own file"
    ]
    assert all(torch.equal(v, first[k]) for k, v in model.state_dict().items())


def test_weights_that_are_not_finite_are_refused_but_masks_are_not(tmp_path: Path) -> None:
    state = digits_state()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    model = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)
    with pytest.raises(UserError, match=r"must be finite, got nan in 'conv1.weight' of w.pth"):
        load_weights(model, tmp_path / "w.pth")
    masked = nn.Linear(2, 2)
    masked.register_buffer("mask", torch.full((2,), -float("inf")))
    torch.save(masked.state_dict(), tmp_path / "m.pth")
    assert load_weights(masked, tmp_path / "m.pth") == ()


def test_classes_that_only_the_network_has_are_noted() -> None:
    assert surplus_notes(10, 10) == ()
    (note,) = surplus_notes(1000, 10)
    assert note.startswith("warning: the network scores 1,000 classes, the data have 10 (the lar")


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_the_initial_weights_of_a_torchvision_network_are_noted(stock: Path) -> None:
    from torchvision.models import Inception_V3_Weights, ResNet18_Weights

    (note,) = stock_notes("torchvision:resnet18")
    assert note.startswith("torchvision:resnet18 starts with random weights")
    for weights in (ResNet18_Weights, Inception_V3_Weights):
        (stock / weights.DEFAULT.url.rpartition("/")[2]).touch()
    (note,) = stock_notes("torchvision:resnet18")
    assert "starts with the pretrained weights resnet18-" in note
    (note,) = stock_notes("torchvision:inception_v3")
    assert note.startswith("warning: ")
    assert note.endswith("trained on images of mean 0.5 and std 0.5")
    assert stock_notes("resnet20") == stock_notes("my_module:build") == ()


def test_pretrained_weights_with_old_names_are_loaded_and_other_files_refused(stock: Path) -> None:
    import re

    from torchvision.models import DenseNet121_Weights, densenet121

    file = stock / DenseNet121_Weights.DEFAULT.url.rpartition("/")[2]
    state = densenet121(weights=None).state_dict()
    pattern = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
    torch.save({pattern.sub(r"\1.\2", key): value for key, value in state.items()}, file)
    shape = (3, 32, 32)
    built = build_model("torchvision:densenet121", classes=4, input_shape=shape, seed=5)
    differing = {k for k, v in built.state_dict().items() if not is_equal(v, state[k])}
    assert differing == {"classifier.weight", "classifier.bias"}
    del state["features.conv0.weight"]
    torch.save(state, file)
    with pytest.raises(UserError, match=r"without a 'features.conv0.weight' of shape \(64, 3"):
        build_model("torchvision:densenet121", classes=4, input_shape=shape, seed=5)


def is_equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def test_a_network_with_a_nan_weight_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    with pytest.raises(UserError, match=r"must be finite, got nan in '0.weight' of model 'Sequ"):
        pp.prune(model, ((X, Y), (MORE, Y)), "uniform", target_flops=0.5, out=tmp_path / "out")
