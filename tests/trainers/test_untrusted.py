"""Untrusted files: no code runs, no outside file is read, sizes are checked, no traceback."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import tempfile
import time
from pathlib import Path

import pytest
import torch
from file_damage import fuzz
from hypothesis import given, settings
from hypothesis import strategies as st
from model_folders import make_run, pick_into, trained_digits

import paretoprune as pp
from paretoprune.search.cli.app import main
from paretoprune.search.results.selection import (
    SelectionCriteria,
    describe_neighbors,
    explain_selection,
    select_point,
)
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.records.pareto_front import front_from_json
from paretoprune.spaces.records.recipe import recipe_from_json
from paretoprune.trainers.models.weights import read_state_dict


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrusted")
    front = make_run(folder / "run", *trained_digits())
    return folder / "run", pick_into(folder / "picked", folder / "run", front)


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "run")


@pytest.fixture
def picked(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "picked")


def refused(call, match=None):
    """The call ends in one line, and soon."""
    start = time.monotonic()
    with pytest.raises(UserError, match=match) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    assert time.monotonic() - start < 20


def edit(path, **changes):
    """Change fields of a JSON file; `source__name` is the name within source."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        inner = values
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    path.write_text(json.dumps(values))


def vouch(folder, content):
    """Put bytes in the place of the weights, with their true hash in the recipe."""
    (folder / "model.safetensors").write_bytes(content)
    edit(folder / "recipe.json", weights_sha256=hashlib.sha256(content).hexdigest())


class Hostile:
    """Would make a file if it were ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_hostile_pickle_in_place_of_weights_never_runs(form, picked, tmp_path):
    trap = tmp_path / "owned"
    if form == "pickle":
        content = pickle.dumps(Hostile(str(trap)))
    else:
        torch.save(Hostile(str(trap)), tmp_path / "x.pt")
        content = (tmp_path / "x.pt").read_bytes()
    vouch(picked, content)
    refused(lambda: pp.load(picked), "safetensors")
    for name in ("x.pt", "x.pth", "x.safetensors"):
        (tmp_path / name).write_bytes(content)
        refused(lambda name=name: read_state_dict(tmp_path / name), "weights must")
    assert not trap.exists()


@pytest.mark.parametrize("name", ["dense.safetensors", "finetune/checkpoint.safetensors"])
def test_a_hostile_teacher_or_checkpoint_never_runs(name, picked, tmp_path, capsys):
    trap, file = tmp_path / "owned", picked / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content := pickle.dumps(Hostile(str(trap))))
    edit(picked / "recipe.json", dense_sha256=hashlib.sha256(content).hexdigest())
    if "dense" not in name:
        (picked / "dense.safetensors").unlink()
    with pytest.raises(SystemExit) as exit_:
        main(["finetune", str(picked), "--data", "digits", "--epochs", "1"])
    output = capsys.readouterr()
    assert (exit_.value.code, output.err.count("\n")) == (2, 1)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("atoms", 10**12), ("atoms", -1), ("removed", [10**12]), ("source__classes", 10**12),
     ("source__classes", 0), ("source__input_shape", [1, 10**6, 10**6]),
     ("source__input_shape", [1] * 60), ("source__input_shape", []),
     ("source__input_shape", [1, 0, 8]), ("seed", 10**400), ("widths", {"conv1": 10**9}),
     ("source__keep", ["*"]), ("figures", {"accuracy": 1}), ("versions", [])],
)  # fmt: skip
def test_an_impossible_size_is_refused_at_once(field, value, picked):
    edit(picked / "recipe.json", **{field: value})
    refused(lambda: pp.load(picked))


@pytest.mark.parametrize(
    "name",
    ["torchvision:../../x", "torchvision:", "../../x", "x" * 10**6, "os:system", "\x1b[2J", "",
     "torchvision:resnet18:system", "torchvision:os.system"],
)  # fmt: skip
def test_a_name_in_a_recipe_is_never_imported(name, picked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    edit(picked / "recipe.json", source__name=name)
    refused(lambda: pp.load(picked))


def header_claiming(count):
    return struct.pack("<Q", count) + b"{}"


def tensor_claiming(size):
    text = json.dumps({"x": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}})
    return struct.pack("<Q", len(text)) + text.encode()


@pytest.mark.parametrize(
    "content", [header_claiming(2**60), tensor_claiming(2**58), header_claiming(2), b""]
)
def test_a_header_that_claims_more_bytes_than_the_file_has_is_refused(content, picked):
    vouch(picked, content)
    refused(lambda: pp.load(picked))


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json"])
def test_a_sparse_file_of_a_terabyte_is_not_read(name, picked):
    os.truncate(picked / name, 2**40)
    refused(lambda: pp.load(picked), "at most")


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_special_file_does_not_block_the_reader(name, kind, picked):
    (picked / name).unlink()
    if kind == "pipe":
        os.mkfifo(picked / name)
    elif kind == "device":
        (picked / name).symlink_to("/dev/zero")
    else:
        (picked / name).mkdir()
    refused(lambda: pp.load(picked))


@pytest.mark.parametrize("kind", ["relative", "absolute", "link"])
def test_a_point_outside_its_run_is_not_read(kind, run, picked, tmp_path, capsys):
    path = {"relative": "../picked", "absolute": str(picked), "link": "trials/link"}[kind]
    (run / "trials/link").symlink_to(picked)
    values = json.loads((run / "front.json").read_text())
    values["points"] = [{**values["points"][0], "path": path}]
    (run / "front.json").write_text(json.dumps(values))
    with pytest.raises(SystemExit) as exit_:
        main(["pick", str(run), "--out", str(tmp_path / "out")])
    output = capsys.readouterr()
    assert (exit_.value.code, output.err.count("\n")) == (2, 1)
    assert "must lie in its run" in output.err
    assert not (tmp_path / "out").exists()


def test_a_deeply_nested_recipe_raises_one_line(picked):
    (picked / "recipe.json").write_text("[" * 10**6)
    refused(lambda: pp.load(picked))


def pick_from(values):
    """The steps of `pick` between reading and writing."""
    front = front_from_json(values)
    for criteria in (
        SelectionCriteria(),
        SelectionCriteria(max_flops=0.5, min_accuracy=0.5),
        SelectionCriteria(knee=True),
        SelectionCriteria(trial=1),
        SelectionCriteria(max_params=100, max_latency_ms=0.2),
    ):
        try:
            point = select_point(front, criteria)
        except UserError:
            continue
        assert explain_selection(front, criteria, point)
        describe_neighbors(front, point)
    front.to_json()


CASES = [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


@pytest.mark.parametrize("cases", CASES)
def test_every_damaged_recipe_raises_one_line(cases, made):
    fuzz(json.loads((made[1] / "recipe.json").read_text()), recipe_from_json, cases)


@pytest.mark.parametrize("cases", CASES)
def test_every_damaged_front_raises_one_line_in_pick(cases, made):
    fuzz(json.loads((made[0] / "front.json").read_text()), pick_from, cases)


@pytest.mark.parametrize("cases", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_damaged_picked_folder_raises_one_line_in_load(cases, made, tmp_path):
    folder = shutil.copytree(made[1], tmp_path / "picked")

    def load(values):
        (folder / "recipe.json").write_text(json.dumps(values))
        pp.load(folder)

    fuzz(json.loads((made[1] / "recipe.json").read_text()), load, cases)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_raise_one_line_and_are_no_recipe(content):
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "recipe.json").write_bytes(content)
        with pytest.raises(UserError):
            pp.load(name)
