"""Options for normalisation and augmentation: parsing, errors, messages and recipes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import in_process
from model_folders import make_run, trained_digits
from PIL import Image
from safetensors.torch import save_file

import paretoprune as pp
from paretoprune.search.cli.handlers import run_search
from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.prepare import data_digest, load_inputs
from paretoprune.search.driver.progress import SearchProgress
from paretoprune.search.driver.resume import with_kept
from paretoprune.search.driver.search import RunInputs, build_config
from paretoprune.search.driver.warm_start import images_like
from paretoprune.search.optimizer.plugins import Plugin
from paretoprune.search.storage.run_folder import RunFolder
from paretoprune.search.sweep.config import build_entries
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.records.recipe import read_recipe
from paretoprune.trainers.data.batches import iterate_batches
from paretoprune.trainers.data.image_options import (
    ImageOptions,
    default_augmentation,
    describe_augmentation,
    describe_normalisation,
    image_options,
    near_chance,
    with_options,
)
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.sources.options import LoadOptions
from paretoprune.trainers.data.sources.torchvision_files import TORCHVISION_FORMATS
from paretoprune.trainers.data.sources.user import convert_user_data
from paretoprune.trainers.data.splits import DataSplits, Split, normalize_images
from paretoprune.trainers.models.build import build_model

NO_PLUGINS: tuple[Plugin, ...] = ()
QUICK = ("--policy", "uniform", "--target-flops", "0.5", "--epochs", 0.5, "--data", "digits")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETOPRUNE_CACHE", str(tmp_path / "cache"))


def make_folder(root: Path, *, mode: str = "RGB", size: int = 16) -> Path:
    """Images whose brightness grows from left to right, darker ones in the second class."""
    ramp = np.tile(np.linspace(40, 200, size, dtype=np.uint8), (size, 1))
    for part in ("train", "test"):
        for label, name in enumerate(("one", "two")):
            (root / part / name).mkdir(parents=True)
            for i in range(12):
                image = Image.fromarray(ramp // (label + 1)).convert(mode)
                image.save(root / part / name / f"{i:02}.png")
    return root


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--mean", "0.5"), "--mean must come with --std unless it is one of imagenet, cifar10"),
        (("--std", "0.5"), "--std must come with --mean, got --std 0.5 alone"),
        (("--mean", "imagenet", "--std", "0.5"), "--mean imagenet sets both, got --std 0.5"),
        (("--mean", "imagenet", "--std", "half"), "--mean imagenet sets both, got --std half"),
        (("--mean", "0.5", "--std", "half"), "--std must be numbers where --mean is, got half"),
        (
            ("--mean", "0.5,0.5,0.5", "--std", "1"),
            "--mean must be one number or one for each channel (1), got 3",
        ),
        (("--mean", "imagenet"), "--mean must be one number or one for each channel (1), got 3"),
        (("--mean", "0.5", "--std", "0"), "--std must be above 0 and at most 1, got 0; "),
        (("--mean", "0.5", "--std", "-1"), "--std must be above 0 and at most 1, got -1; "),
        (("--mean", "0.5", "--std", "nan"), "--std must be above 0 and at most 1, got nan; "),
        (("--mean", "127.5", "--std", "0.5"), "got 127.5; images are scaled to 0..1: divide by"),
        (("--mean", "imagnet"), "--mean must be numbers, got imagnet; write 0.5, 0.485,0.456,0.4"),
        (("--augment", "flip"), "--augment must be one of none, crop, flip-crop, got flip; "),
        (
            ("--data", "folder:nowhere", "--mean", "0.5,0.5", "--std", "1"),
            "for each channel (1 or 3), got 2",
        ),
    ],
)
def test_an_invalid_normalisation_is_refused_in_one_line_before_the_run_starts(
    words, line, tmp_path, capsys
):
    out = tmp_path / "run"
    train = ("train", "--model", "digits-resnet")
    data = () if "--data" in words else ("--data", "digits")
    for start in (("search",), (*train, *data)):
        target = ("--target-flops", 0.4) if start[0] == "search" else ()
        place = out if target else tmp_path / "n.safetensors"
        code, output = in_process(capsys, *start, *target, "--out", place, *words)
        assert code == 2
        assert line in output.err
        assert len(output.err.strip().splitlines()) == 1
        assert output.out == ""
        assert not place.exists()


def test_three_numbers_for_a_folder_of_grey_images_are_refused(tmp_path, capsys):
    data = f"folder:{make_folder(tmp_path / 'd', mode='L')}"
    words = ("--policy", "uniform", "--target-flops", 0.5, "--out", tmp_path / "n")
    code, output = in_process(capsys, "prune", *words, "--data", data, "--mean", "imagenet")
    assert code == 2
    assert output.err.startswith("--mean must be one number or one for each channel (1), got 3 ")


@pytest.mark.parametrize(
    ("given", "mean", "std"),
    [
        (("half", None), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (("cifar10", None), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        (("imagenet", "imagenet"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (("none", None), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        (("0.1", "0.2,0.3,0.4"), (0.1, 0.1, 0.1), (0.2, 0.3, 0.4)),
    ],
)
def test_a_folder_has_the_given_normalisation(given, mean, std, tmp_path):
    data = load_data(f"folder:{make_folder(tmp_path / 'd')}")
    assert data.mean == (0.485, 0.456, 0.406)
    asked = with_options(data, image_options(*given, None))
    assert (asked.mean, asked.std) == (mean, std)
    want = data.train.images.double() / 255
    want = (want - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize_images(data.train.images, asked), want.float())


def test_float_images_take_a_normalisation_only_if_they_are_in_0_to_1():
    labels = torch.arange(20) % 2
    images = torch.rand(20, 2, 4, 4)
    half = image_options("0.5", "0.25,0.5", None)
    data = convert_user_data([(images, labels)] * 2)
    assert (data.mean, data.std) == ((0.0, 0.0), (1.0, 1.0))
    changed = normalize_images(images, with_options(data, half))
    torch.testing.assert_close(changed[:, 0], (images[:, 0] - 0.5) / 0.25)
    own = convert_user_data([(images * 4 - 2, labels)] * 2)
    with pytest.raises(UserError, match=r"must be for images in 0\.\.1, got float images from -"):
        with_options(own, half)
    assert with_options(own, image_options("none", None, None)).mean == (0.0, 0.0)
    with pytest.raises(UserError, match=r"one for each channel \(2\), got 3"):
        with_options(data, image_options("imagenet", None, None))
    flat = convert_user_data([(torch.rand(20, 6), labels)] * 2)
    with pytest.raises(UserError, match="augment crop needs images of shape"):
        with_options(flat, ImageOptions(augment="crop"))


def test_python_takes_numbers_lists_and_presets(tmp_path):
    labels = torch.arange(20) % 2
    data = [(torch.randint(0, 255, (20, 2, 8, 8), dtype=torch.uint8), labels)] * 2
    with pytest.raises(UserError, match=r"^mean must be one number or one for each channel \(2\)"):
        pp.search("digits-resnet", data, target_flops=0.5, mean=[0.5, 0.4, 0.3], std=0.5)
    with pytest.raises(UserError, match=r"^std must be above 0 and at most 1, got 0"):
        pp.search("digits-resnet", data, target_flops=0.5, mean=(0.5, 0.4), std=0)
    with pytest.raises(UserError, match=r"^augment must be one of none, crop, flip-crop"):
        pp.finetune(tmp_path, data, augment="flips")
    with pytest.raises(UserError, match=r"mean half sets both, got std=0\.25"):
        pp.finetune(tmp_path, data, mean="half", std=0.25)


def test_the_options_are_in_the_recipe_and_a_fine_tune_uses_them(tmp_path, capsys):
    chosen = ("--mean", "half", "--augment", "crop", "--dense-epochs", 1)
    folder = tmp_path / "n"
    code, output = in_process(capsys, "prune", *QUICK, *chosen, "--out", folder)
    assert code == 0, output.err
    assert "normalisation: mean 0.5; std 0.5 (as given)\n" in output.out
    assert "augmentation: crop (as given)\n" in output.out
    recipe = read_recipe(folder / "recipe.json")
    source = recipe.source
    assert (source.mean, source.std, source.augment) == ((0.5,), (0.5,), "crop")
    tune = ("finetune", folder, "--data", "digits", "--epochs", 1)
    code, output = in_process(capsys, *tune)
    assert code == 0, output.err
    assert "normalisation: mean 0.5; std 0.5 (from the recipe)\n" in output.out
    assert "augmentation: crop (from the recipe; --augment none turns it off)\n" in output.out
    tuned = read_recipe(folder / "recipe.json")
    assert tuned.source == source
    assert tuned.fine_tune is not None
    as_asked = with_options(load_data("digits"), image_options("half", None, "crop"))
    assert tuned.fine_tune.data_sha256 == data_digest(as_asked)
    code, output = in_process(capsys, *tune, "--augment", "none")
    assert "finished before" not in output.out
    assert "augmentation: none (as given)\n" in output.out
    assert read_recipe(folder / "recipe.json").source == replace(source, augment="none")
    code, output = in_process(capsys, *tune)
    assert "finished before" in output.out
    assert "augmentation: none (from the recipe; " in output.out


def test_weights_near_chance_raise_a_warning_with_the_likely_cause(tmp_path, capsys):
    untrained = build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=0)
    save_file(untrained.state_dict(), tmp_path / "untrained.safetensors")
    save_file(trained_digits()[0].state_dict(), tmp_path / "trained.safetensors")
    warned = {}
    for name in ("untrained", "trained"):
        words = ("--weights", tmp_path / f"{name}.safetensors", "--out", tmp_path / name)
        code, output = in_process(capsys, "prune", *QUICK, *words)
        assert code == 0, output.err
        warned[name] = [line for line in output.out.splitlines() if line.startswith("warning:")]
    assert warned["trained"] == []
    (line,) = warned["untrained"]
    assert line.startswith("warning: the given weights are near chance on validation: accuracy 0.")
    assert "another normalisation than in training (in use: mean 0.3" in line
    assert "another order of the classes" in line
    words = ("--weights", tmp_path / "untrained.safetensors", "--out", tmp_path / "quiet")
    code, output = in_process(capsys, "prune", *QUICK, *words, "--quiet")
    assert output.err.splitlines() == [line]


def test_near_chance_is_three_standard_errors_above_the_most_frequent_class():
    labels = [0] * 60 + [1] * 40
    errors = 3 * math.sqrt(0.6 * 0.4 / 100)
    assert near_chance(0.6 + errors - 0.001, labels) == pytest.approx((0.6, errors))
    assert near_chance(0.05, labels) is not None  # another order of the classes
    assert near_chance(0.6 + errors + 0.001, labels) is None
    assert near_chance(1.0, [3] * 10) is None  # one class says nothing
    rng = np.random.default_rng(0)
    guessed = rng.binomial(400, 0.25, size=5000) / 400
    balanced = np.repeat(np.arange(4), 100).tolist()
    missed = np.mean([near_chance(float(one), balanced) is None for one in guessed])
    assert missed < 0.003


def seen_in_training(data: DataSplits, augment: str) -> list[bool]:
    """Whether each of the rows of the ramps that training shows grows to the right."""
    generator = torch.Generator().manual_seed(0)
    (images, _), *_ = iterate_batches(
        data.train, data, batch_size=16, generator=generator, augment=augment
    )
    inner = images[:, 0, 8, 4:-4]
    return [bool((row.diff() >= 0).all()) for row in inner]


@pytest.mark.parametrize("streamed", [False, True])
def test_only_flip_crop_mirrors_the_images_of_a_folder(streamed, tmp_path):
    reading = LoadOptions(memory_limit=1 if streamed else 2**30, workers=0)
    data = load_data(f"folder:{make_folder(tmp_path / 'd')}", reading=reading)
    assert (data.train.image_files is not None) is streamed
    assert data.augment == "none"
    assert all(seen_in_training(data, "none"))
    assert all(seen_in_training(data, "crop"))
    assert 0 < sum(seen_in_training(data, "flip-crop")) < 16
    still = next(iterate_batches(data.train, data, batch_size=16))[0]
    generator = torch.Generator().manual_seed(0)
    shuffled = iterate_batches(
        data.train, data, batch_size=16, generator=generator, augment="crop"
    )
    moved = next(shuffled)[0]
    assert not torch.equal(still.sort(0)[0], moved.sort(0)[0])


def test_each_source_has_a_default_and_the_message_says_how_to_change_it(tmp_path):
    for name, known in TORCHVISION_FORMATS.items():
        assert (
            known.augment
            == default_augmentation(name)[0]
            == ("flip-crop" if "cifar" in name else "none")
        )
    data = load_data(f"folder:{make_folder(tmp_path / 'd')}")
    line = describe_augmentation(data, ImageOptions())
    assert line == (
        "augmentation: none (the default for folder:DIR, as a flip or a crop may change what an "
        "image shows; --augment crop or flip-crop turns it on)"
    )
    line = describe_normalisation(data, ImageOptions())
    assert line == (
        "normalisation: mean 0.485, 0.456, 0.406; std 0.229, 0.224, 0.225 (the default for "
        "folder:DIR; --mean and --std set other values)"
    )
    line = describe_augmentation(load_data("digits"), ImageOptions())
    assert line.startswith(
        "augmentation: none (the default for digits, as a flip changes a digit; "
    )


def test_an_unknown_augmentation_is_refused():
    split = Split(torch.zeros(4, 1, 8, 8), torch.arange(4) % 2)
    with pytest.raises(UserError, match=r"^augment must be one of none, crop, flip-crop, got T"):
        DataSplits("x", split, split, None, 2, (0.0,), (1.0,), (1, 8, 8), augment=True)  # type: ignore[arg-type]


def test_a_resumed_run_keeps_its_image_options(tmp_path):
    name = f"folder:{make_folder(tmp_path / 'd')}"
    settings = SearchSettings(target_flops="0.4", data=name, mean="half", augment="crop")
    inputs = load_inputs(settings, model=None, data=None)
    given = RunInputs(SearchProgress(quiet=True))
    config = json.loads(json.dumps(build_config(inputs, RunFolder(tmp_path), NO_PLUGINS, given)))
    assert config["images"] == {"mean": [0.5] * 3, "std": [0.5] * 3, "augment": "crop"}
    assert (config["settings"]["mean"], config["settings"]["augment"]) == ("half", "crop")
    again = with_kept(load_data(name), config)
    assert data_digest(again) == config["data_sha256"]
    assert (again.std, again.augment) == ((0.5,) * 3, "crop")
    del config["images"]  # a run of before: folders were always flipped
    assert with_kept(load_data(name), config).augment == "flip-crop"
    config["settings"]["data"] = "digits"
    assert with_kept(load_data("digits"), config).augment == "none"


def test_a_resumed_run_with_other_image_options_is_refused(tmp_path, capsys):
    model, data = trained_digits()
    make_run(tmp_path / "run", model, data)
    for words, name in ((("--mean", "half"), "mean"), (("--augment", "crop"), "augment")):
        code, output = in_process(capsys, "search", "--resume", tmp_path / "run", *words)
        assert code == 2
        assert f"got another --{name}; leave it out, or start a new search" in output.err


def test_a_transfer_keeps_the_image_options_of_the_run_if_the_data_are_the_same(tmp_path, capsys):
    model, data = trained_digits()
    make_run(tmp_path / "run", model, data)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["settings"] |= {"mean": "0.1", "std": "0.2", "augment": "crop"}
    path.write_text(json.dumps(config))
    kept = {"mean": "0.1", "std": "0.2", "augment": "crop"}
    assert images_like(tmp_path / "run", "digits", {"seed": 1}) == {**kept, "seed": 1}
    own = {"mean": "half"}
    assert images_like(tmp_path / "run", "digits", own) == {"mean": "half", "augment": "crop"}
    assert images_like(tmp_path / "run", "folder:x", own) == own
    with pytest.raises(UserError, match=r"^mean must come with std"):
        run_search({"target_flops": "0.4", "mean": "0.5"}, None, like=tmp_path / "run")


def test_runs_of_a_sweep_share_a_dense_network_only_if_their_image_options_are_equal():
    places = [{"model": "resnet20", "mean": "half"}, {"model": "resnet20"}]
    keys = {
        build_entries({"models": [place], "data": ["cifar10:x"], "targets": [0.5]})[0].dense_key
        for place in places
    }
    assert len(keys) == 2
    (entry,) = build_entries(
        {"search": {"mean": [0.5, 0.4, 0.3], "std": 0.2, "target-flops": 0.5}}
    )
    assert entry.settings.images() == ImageOptions((0.5, 0.4, 0.3), (0.2,), None)
    with pytest.raises(UserError, match=r"^std must be above 0"):
        build_entries({"search": {"mean": 0.5, "std": 0, "target_flops": 0.5}})


def test_sensitivity_uses_the_given_normalisation(tmp_path, capsys):
    save_file(trained_digits()[0].state_dict(), tmp_path / "w.safetensors")
    words = ("--model", "digits-resnet", "--data", "digits", "--images", 64)
    words += ("--weights", tmp_path / "w.safetensors", "--out", tmp_path / "s", "--mean", "none")
    code, output = in_process(capsys, "sensitivity", *words)
    assert code == 0, output.err
    assert "normalisation: mean 0; std 1 (as given)" in output.out
