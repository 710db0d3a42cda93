"""export: a file exists only if it gives eager's scores; any batch; timed beside dense."""

import sys

import onnxruntime
import pytest
import torch
from command_line import in_process
from model_folders import make_run, pick_into, random_mask, save_cut, trained_digits
from torch import nn

import paretoprune as pp
from paretoprune.search.api import Result
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.models.export import ExportSpec, export_network
from paretoprune.trainers.pruning.surgery import prune_network


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    return folder, make_run(folder, *trained_digits())


@pytest.fixture
def picked(scene, tmp_path):
    return pick_into(tmp_path / "picked", *scene)


def export(capsys, *words):
    return in_process(capsys, "export", *words)


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(scores)


def run_torch(path, images):
    with torch.no_grad():
        return torch.export.load(path).module()(images)


RUN = {"onnx": run_onnx, "torch": run_torch}
NAMES = {"onnx": "model.onnx", "torch": "model.pt2"}


@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_the_command_writes_a_file_that_gives_eagers_scores_at_any_batch(to, picked, capsys):
    code, output = export(capsys, picked, "--to", to)
    assert code == 0, output.err
    assert "at batches of 1, 2, 5" in output.out
    rows = [line.split("│") for line in output.out.splitlines() if "│" in line]
    assert [row[1].strip() for row in rows] == ["dense", "pruned"]
    images = torch.rand(7, 1, 8, 8)
    with torch.no_grad():
        eager = pp.load(picked)(images)
    assert torch.allclose(RUN[to](picked / NAMES[to], images), eager, atol=1e-4)
    assert not [path for path in picked.iterdir() if path.name.startswith(".")]


def test_from_python_the_ending_says_the_format(scene, tmp_path):
    picked = Result(scene[1], scene[0]).pick(trial=1)
    path = picked.export(tmp_path / "small.pt2", batch=3)
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(run_torch(path, images), picked.model(images), atol=1e-4)
    with pytest.raises(pp.UserError, match=r"must end in \.pt2 or \.onnx"):
        picked.export(tmp_path / "small.pth")


class Restless(nn.Module):
    """Never gives the same scores twice."""

    def forward(self, x):
        return x.mean((2, 3)) + torch.rand_like(x.mean((2, 3)))


class Counting(nn.Module):
    """Python that looks at the values."""

    def forward(self, x):
        return x.mean((2, 3)) if float(x.sum()) > 0 else -x.mean((2, 3))


@pytest.mark.parametrize(
    ("network", "message"), [(Restless, "within 0.0001"), (Counting, "must be traceable")]
)
def test_a_file_that_is_not_the_network_is_never_written(network, message, tmp_path):
    with pytest.raises(pp.UserError, match=message) as error:
        export_network(network(), tmp_path / "x.pt2", ExportSpec("torch", (3, 4, 4)))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line_with_the_remedy(picked, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, output = export(capsys, picked, "--to", "onnx")
    assert (code, output.err.count("\n")) == (2, 1)
    assert "pip install 'paretoprune[onnx]'" in output.err


WRONG = [
    (("--to", "torchscript"), "TorchScript is deprecated: write --to torch"),
    (("--to", "tflite"), "--to must be torch or onnx, got 'tflite'"),
    (("--to", "torch", "--batch", "0"), "--batch must be dynamic or at least 1"),
    (("--to", "torch", "--batch", "many"), "--batch must be dynamic or a number"),
    (("--to", "torch", "--threads", "0"), "--threads must be 1 to"),
    (("--to", "torch", "--out", "x.onnx"), "--out must end in .pt2 for --to torch"),
    (("--to", "torch", "--threads", "9999"), "the cores of this machine, got 9999"),
    (("--to", "torch", "--out", "/no/such/folder/x.pt2"), "--out must be a file in a folder"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_wrong_input_is_one_line_and_exit_2(words, message, picked, capsys):
    code, output = export(capsys, picked, *words)
    assert (code, output.err.count("\n")) == (2, 1)
    assert message in output.err


def test_a_network_of_the_users_own_is_named_again(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine_to_export.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(1, 8, 3), "
        "nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import mine_to_export

    save_cut(tmp_path / "net", "own", (1, 8, 8), classes=4, model=mine_to_export.build())
    code, output = export(capsys, tmp_path / "net", "--to", "torch")
    assert (code, output.err.count("\n")) == (2, 1)
    assert "--model module:function" in output.err
    code, output = export(
        capsys, tmp_path / "net", "--to", "torch", "--model", "mine_to_export:build"
    )
    assert code == 0, output.err


FAMILIES = {
    "resnet20": (3, 32, 32), "resnet56": (3, 32, 32), "vgg16": (3, 32, 32),
    "torchvision:resnet50": (3, 96, 96), "torchvision:mobilenet_v2": (3, 96, 96),
    "torchvision:vit_b_16": (3, 224, 224), "torchvision:swin_t": (3, 64, 64),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torch", "onnx"])
@pytest.mark.parametrize("name", FAMILIES)
def test_pruned_networks_of_each_family_are_exported(name, to, tmp_path):
    shape = FAMILIES[name]
    model, _ = make_working_copy(build_model(name, classes=10, input_shape=shape, seed=0))
    channel_map = trace_channel_map(model, shape)
    small = prune_network(model, channel_map, random_mask(channel_map)).eval()
    exported = export_network(small, tmp_path / NAMES[to], ExportSpec(to, shape))
    images = torch.randn(3, *shape)
    with torch.no_grad():
        eager = small(images)
    scale = max(1.0, float(eager.abs().max()))
    assert float((RUN[to](exported.path, images) - eager).abs().max()) < 1e-4 * scale
