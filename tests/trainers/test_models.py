"""Networks are built by name, fit their data, and take weights from files without running them."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shared_files import shared_file
from torch import nn

from paretoprune.spaces.errors import UserError
from paretoprune.trainers.models.build import ZOO_BUILDERS, build_model
from paretoprune.trainers.models.weights import load_weights

SIZES = {"digits-resnet": (1, 8, 8), "fc": (1, 28, 28), "lenet5": (1, 28, 28)}


def digits_resnet(seed: int = 0) -> nn.Module:
    return build_model("digits-resnet", classes=10, input_shape=(1, 8, 8), seed=seed)


@pytest.mark.parametrize("name", sorted(set(ZOO_BUILDERS) - {"resnet110", "resnet44"}))
def test_every_network_of_the_zoo_scores_its_classes(name: str) -> None:
    shape = SIZES.get(name, (3, 32, 32))
    model = build_model(name, classes=7, input_shape=shape, seed=0).eval()
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_initial_weights_depend_on_the_seed_only() -> None:
    before = torch.get_rng_state()
    a, b, c = digits_resnet(0), digits_resnet(0), digits_resnet(1)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(next(a.parameters()), next(c.parameters()))
    assert torch.equal(before, torch.get_rng_state())


def test_torchvision_head_fits_the_classes() -> None:
    model = build_model("torchvision:squeezenet1_1", classes=3, input_shape=(3, 64, 64), seed=0)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_pretrained_weights_in_the_cache_are_loaded_except_for_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    stock = resnet18(weights=None)
    url = ResNet18_Weights.DEFAULT.url
    torch.save(stock.state_dict(), tmp_path / "checkpoints" / url.rpartition("/")[2])
    model = build_model("torchvision:resnet18", classes=4, input_shape=(3, 32, 32), seed=5)
    state = model.state_dict()
    stocked = {k: v for k, v in stock.state_dict().items() if state[k].shape == v.shape}
    same = [k for k, v in stocked.items() if torch.equal(state[k], v)]
    assert set(state) - set(same) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("resnet21", (3, 32, 32), "model must be one of digits-resnet, .*, got 'resnet21'"),
        ("torchvision:resnet19", (3, 32, 32), "got 'resnet19'; close names are resnet1"),
        ("torchvision:resnet18", (1, 28, 28), "3-channel images, got input shape"),
        ("lenet5", (1, 8, 8), "must take images of shape .1, 8, 8., got a failure"),
        ("torch:no_such_factory", (1, 8, 8), "got 'no_such_factory' which it does not have"),
    ],
)
def test_unsuitable_models_are_refused_in_one_line(
    name: str, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        build_model(name, classes=10, input_shape=shape, seed=0)
    assert "\n" not in str(caught.value)


def test_the_users_function_gets_the_arguments_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_net.py").write_text(
        "from torch import nn\n"
        "def build(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
        "def wrong():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))\n"
        "def none():\n    return 3\n"
        "def raises():\n    raise RuntimeError('boom')\n"
        "class Typo(nn.Module):\n    def forward(self, x):\n        return y\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    model = build_model("my_own_net:build", classes=6, input_shape=(1, 8, 8), seed=0)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 6)
    with pytest.raises(UserError, match=r"must give 6 scores per image, got shape \(5,\)"):
        build_model("my_own_net:wrong", classes=6, input_shape=(1, 8, 8), seed=0)
    with pytest.raises(UserError, match=r"raises' must build, got RuntimeError: boom .*net.py:9"):
        build_model("my_own_net:raises", classes=6, input_shape=(1, 8, 8), seed=0)
    with pytest.raises(
        UserError, match=r"got a failure \(NameError: .*my_own_net.py:12\)\); choose"
    ):
        build_model("my_own_net:Typo", classes=6, input_shape=(1, 8, 8), seed=0)
    with pytest.raises(UserError, match=r"must return a torch.nn.Module, got int"):
        build_model("my_own_net:none", classes=6, input_shape=(1, 8, 8), seed=0)


@pytest.mark.parametrize("form", ["plain", "state_dict", "nested", "module", "safetensors"])
def test_weights_are_found_in_every_wrapper(tmp_path: Path, form: str) -> None:
    source, target = digits_resnet(0), digits_resnet(1)
    state = source.state_dict()
    prefixed = {f"module.{k}": v for k, v in state.items()}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        contents: dict[str, object] = {
            "plain": state,
            "state_dict": {"state_dict": state, "epoch": 3},
            "nested": {"model": {"state_dict": prefixed}, "best": 0.9},
            "module": prefixed,
        }
        torch.save(contents[form], path)
    load_weights(target, path)
    assert all(torch.equal(v, state[k]) for k, v in target.state_dict().items())


def test_wrong_architecture_names_the_first_mismatching_key(tmp_path: Path) -> None:
    torch.save(digits_resnet().state_dict(), tmp_path / "w.pth")
    narrow = build_model("digits-resnet", classes=4, input_shape=(1, 8, 8), seed=0)
    before = narrow.state_dict()["conv1.weight"].clone()
    with pytest.raises(UserError, match=r"'linear.weight' has shape .10, 24. instead of .4, 24."):
        load_weights(narrow, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"'1.weight' is missing"):
        load_weights(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), tmp_path / "w.pth")
    assert torch.equal(narrow.state_dict()["conv1.weight"], before)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_hostile_pickle_is_refused_and_never_runs(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    target, path = tmp_path / "owned", tmp_path / "w.pth"
    write({"state_dict": Hostile(target)}, path)
    with pytest.raises(UserError, match=r"tensors only, got .*w.pth which would run code") as e:
        load_weights(digits_resnet(), path)
    assert "\n" not in str(e.value)
    assert not target.exists()


def test_broken_files_are_refused(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(b"\x00" * 50)
        with pytest.raises(UserError, match=name):
            load_weights(digits_resnet(), tmp_path / name)
    for content, said in (
        (b"hello, world", "which has another format"),
        (b"", "which is empty"),
        (b"PK\x03\x04", r"which cannot be read \(\w"),
        (b"\x80\x02", r"which cannot be read \(\w"),
    ):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(UserError, match=f"must be a torch file, got .*w.pth {said}"):
            load_weights(digits_resnet(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="which does not exist"):
        load_weights(digits_resnet(), tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("name", "file", "params"),
    [
        ("resnet20", "resnet20-12fca82f.th", 269_722),
        ("resnet56", "resnet56-4bfd9763.th", 853_018),
    ],
)
def test_published_weights_fit(name: str, file: str, params: int) -> None:
    path = shared_file("weights", file)
    model = build_model(name, classes=10, input_shape=(3, 32, 32), seed=0)
    load_weights(model, path)
    assert sum(p.numel() for p in model.parameters()) == params
