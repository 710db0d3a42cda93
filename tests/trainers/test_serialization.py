"""Pruned networks on disk: bit-equal after loading; damaged files raise one line."""

import hashlib
import json
import os
import pickle
import shutil

import pytest
import torch
from model_folders import save_cut
from safetensors.torch import save
from torch import nn

import paretoprune as pp


@pytest.mark.parametrize(
    ("name", "shape"),
    [("resnet20", (3, 32, 32)), ("lenet5", (1, 28, 28)), ("digits-resnet", (1, 8, 8)),
     ("torchvision:mobilenet_v3_small", (3, 64, 64))],
)  # fmt: skip
def test_a_named_network_is_rebuilt_bit_equal(name, shape, tmp_path):
    small = save_cut(tmp_path / "net", name, shape)
    images = torch.rand(2, *shape)
    with torch.no_grad():
        assert torch.equal(pp.load(tmp_path / "net")(images), small.eval()(images))


def own_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))


def test_a_users_network_needs_its_dense_network(tmp_path):
    small = save_cut(tmp_path / "net", "own", (1, 8, 8), model=own_network())
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(pp.load(tmp_path / "net", model=own_network())(images), small(images))
    with pytest.raises(pp.UserError, match="model="):
        pp.load(tmp_path / "net")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "net"
    save_cut(folder, "digits-resnet", (1, 8, 8))
    return folder


@pytest.fixture
def damaged(net, tmp_path):
    return shutil.copytree(net, tmp_path / "net")


def refused(folder, match, **more):
    with pytest.raises(pp.UserError, match=match) as error:
        pp.load(folder, **more)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(damaged):
    path = damaged / "weights.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    refused(damaged, "sha256")


def test_weights_with_another_hash_are_refused(damaged):
    (damaged / "weights.safetensors").write_bytes(save({"x": torch.zeros(1)}))
    refused(damaged, "sha256")


def test_missing_files_are_refused(damaged):
    (damaged / "weights.safetensors").unlink()
    refused(damaged, "weights.safetensors")
    (damaged / "recipe.json").unlink()
    refused(damaged, "recipe.json")


def test_a_recipe_of_another_model_is_refused(damaged):
    refused(damaged, "fits the network", model=own_network())
    recipe = json.loads((damaged / "recipe.json").read_text())
    recipe["source"]["name"] = "lenet5"
    recipe["source"]["input_shape"] = [1, 28, 28]
    (damaged / "recipe.json").write_text(json.dumps(recipe))
    refused(damaged, "fits the network")


class Hostile:
    """Would write a file if it were ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_hostile_pickle_in_place_of_weights_never_runs(damaged, tmp_path):
    content = pickle.dumps(Hostile(str(tmp_path / "owned")))
    (damaged / "weights.safetensors").write_bytes(content)
    recipe = json.loads((damaged / "recipe.json").read_text())
    recipe["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (damaged / "recipe.json").write_text(json.dumps(recipe))
    refused(damaged, "safetensors")
    assert not (tmp_path / "owned").exists()


def test_code_named_by_a_recipe_is_never_imported(damaged, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = json.loads((damaged / "recipe.json").read_text())
    recipe["source"]["name"] = "trap:build"
    (damaged / "recipe.json").write_text(json.dumps(recipe))
    refused(damaged, "never imported")
    assert not (tmp_path / "owned").exists()
