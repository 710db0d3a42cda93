"""The Python interface, as the README shows it; own scores; the same seed gives the same front."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import ROOT, call, call_here, command
from sklearn.datasets import load_digits
from torch import nn

import paretoprune as pp
from paretoprune.search.api import validate_settings
from paretoprune.search.config.settings import SearchSettings, settings_from_json
from paretoprune.search.storage.trial_records import read_trial_records
from paretoprune.trainers.metrics.count_macs import count_macs_and_params

BRIEF = {
    "trials": 2, "epochs": 1, "workers": 1, "quiet": True, "scores": ["taylor"],
    "allocations": ["global-threshold"], "schedules": ["one-shot"], "screening": False,
}  # fmt: skip


def readme_block(mark):
    text = (ROOT / "README.md").read_text()
    return re.search(rf"<!-- {mark} -->\n```python\n(.*?)```", text, re.DOTALL).group(1)


def digits():
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(bunch.target)
    return (images[:1000], labels[:1000]), (images[1000:1400], labels[1000:1400])


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(readme_block("python"), names)
    small, model = names["small"], names["model"]
    assert isinstance(small, nn.Module)
    dense = count_macs_and_params(model, (1, 8, 8))
    assert count_macs_and_params(small, (1, 8, 8))[0] <= 0.4 * dense[0]
    assert small(names["images"][:2]).shape == (2, 10)


@dataclass(frozen=True)
class Searched:
    """A search with arrays: its model before and after, its data, its front and its folder."""

    before: dict
    model: nn.Module
    data: tuple
    front: pp.Result
    folder: Path


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    data = tuple(tuple(np.asarray(part) for part in pair) for pair in digits())
    model, folder = network().train(), tmp_path_factory.mktemp("searched") / "run"
    before = copy.deepcopy(model.state_dict())
    front = pp.search(model, data, target_flops="50%", out=folder, **BRIEF)
    return Searched(before, model, data, front, folder)


def test_the_given_model_is_never_changed(searched):
    model = searched.model
    assert model.training
    assert [m.out_channels for m in model if isinstance(m, nn.Conv2d)] == [16, 16]
    assert all(torch.equal(searched.before[k], v) for k, v in model.state_dict().items())
    assert all(not m._forward_pre_hooks for m in model.modules())


def assert_pick_save_and_load_agree(front, model, folder):
    picked = front.pick(max_flops=0.5)
    assert picked.evaluation.flops_fraction <= 0.5
    picked.save(folder)
    again, images = pp.load(folder, model=model), digits()[0][0][:5]
    assert torch.equal(again(images), picked.model(images))
    with pytest.raises(pp.UserError, match="model=") as error:
        pp.load(folder)
    assert "\n" not in str(error.value)
    return picked


def test_arrays_are_taken_and_pick_save_load_agree(searched, tmp_path):
    picked = assert_pick_save_and_load_agree(searched.front, searched.model, tmp_path / "picked")
    assert picked.evaluation.test_accuracy is None


def test_loaders_are_taken_and_pick_save_load_agree(tmp_path):
    train, validation = digits()
    data = tuple(
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*pair), batch_size=100)
        for pair in (train, validation, validation)
    )
    model, small = network(), {**BRIEF, "trials": 1}
    front = pp.search(model, data, target_flops="50%", out=tmp_path / "run", **small)
    picked = assert_pick_save_and_load_agree(front, model, tmp_path / "picked")
    assert picked.evaluation.test_accuracy is not None


def test_a_run_from_python_is_resumed_with_the_same_objects(searched, tmp_path):
    out, data = shutil.copytree(searched.folder, tmp_path / "run"), searched.data
    again = pp.resume(out, searched.model, data, quiet=True)
    assert [p.trial for p in again.points] == [p.trial for p in searched.front.points]
    pp.resume(out, searched.model, data, quiet=True, trials=3)
    assert len(read_trial_records(out / "journal.log").evaluations()) == 3
    with pytest.raises(pp.UserError, match="must be passed again"):
        pp.resume(out)
    (images, labels), validation = data
    with pytest.raises(pp.UserError, match="other data"):
        pp.resume(out, network(), ((images, labels[::-1].copy()), validation), quiet=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"target_flops": 40}, "for forty percent write 0.4"), ({}, "got neither"),
     ({"target_flops": 0.4, "trails": 3}, "trails"), ({"target_flops": True}, "got True"),
     ({"target_flops": 0.4, "trials": "40"}, "trials must be a whole number, got '40'"),
     ({"target_flops": 0.4, "trials": 2.5}, "trials must be a whole number, got 2.5"),
     ({"target_flops": 0.4, "trials": None}, "trials must be a whole number, got None"),
     ({"target_flops": 0.4, "epochs": "2"}, "epochs must be a number, got '2'"),
     ({"target_flops": 0.4, "epochs": 10**400}, "epochs must be a number"),
     ({"target_flops": 0.4, "quiet": 1}, "quiet must be true or false, got 1"),
     ({"target_flops": 0.4, "keep": [1]}, "keep must be text, or a list of texts, got [1]"),
     ({"target_flops": 0.4, "out": 3}, "out must be a path, got 3"),
     ({"target_flops": 0.4, "objective": "speed"}, "one of latency, got 'speed'"),
     ({"target_flops": 0.4, "allocations": ("uniform", "even")}, "got 'even'"),
     ({"target_flops": 0.4, "spread": (0.2,)}, "spread must be LOW,HIGH, got 0.2"),
     ({"target_flops": 0.4, "spread": (0.8, 0.2)}, "spread must have LOW below HIGH"),
     ({"target_flops": 0.4, "json": True}, "search has no setting 'json'"),
     ({"target_flops": 0.4, "like": 3}, "like must be a result or its folder, got 3"),
     ({"target_flops": 0.4, "download": True}, "download needs data by name"),
     ({"target_flops": 0.4, "weights": __file__}, "weights must be left out")],
)  # fmt: skip
def test_wrong_settings_are_user_errors(settings, message):
    with pytest.raises(pp.UserError, match=re.escape(message)):
        pp.search(network(), digits(), **settings)


@pytest.mark.parametrize(
    ("given", "same"),
    [({"spread": (0.2, 0.8)}, {"spread": "0.2,0.8"}),
     ({"allocations": ("uniform",), "schedules": ["one-shot", "gradual"]},
      {"allocations": "uniform", "schedules": "one-shot,gradual"}),
     ({"scores": ["taylor", "l2"]}, {"scores": "taylor,l2"}),
     ({"objective": "latency", "keep": "fc"}, {"objective": ["latency"], "keep": ("fc",)}),
     ({"max_flops": 0.5, "max_params": 1}, {"max_flops": "0.5", "max_params": "1"}),
     ({"trials": np.int64(40), "epochs": np.float32(0.5)}, {"trials": 40, "epochs": 0.5}),
     ({"out": "runs/x", "plugin": "own.py"},
      {"out": Path("runs/x"), "plugin": [Path("own.py")]})],
)  # fmt: skip
def test_lists_and_numbers_are_taken_as_the_command_line_takes_words(given, same):
    settings = [
        SearchSettings(target_flops="0.4", **validate_settings(one)) for one in (given, same)
    ]
    settings[0].check()
    assert settings[0] == settings[1]
    again = settings_from_json(json.loads(json.dumps(settings[0].to_json())))
    assert again == settings[0]


def without_times(front):
    if isinstance(front, dict):
        return {
            k: without_times(v) for k, v in front.items() if k not in ("seconds", "latency_ms")
        }
    return [without_times(v) for v in front] if isinstance(front, list) else front


@pytest.mark.parametrize(
    ("model", "words"),
    [(3, "got 3; pass the network itself"), (nn.Sequential, "call it: Sequential(...)"),
     (network().state_dict(), "load the state dict into it"), (None, "got None")],
)  # fmt: skip
def test_what_is_no_network_is_refused_before_anything_is_made(
    model, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused = pytest.raises(pp.UserError, match=rf"(?s)model must be .*{re.escape(words)}")
    with refused as error:
        pp.search(model, digits(), target_flops=0.5)
    assert "\n" not in str(error.value)
    with refused:
        pp.prune(model, digits(), "taylor-by-price", target_flops=0.5)
    if model is not None:
        with refused:
            pp.resume("runs/x", model)
    with pytest.raises(pp.UserError, match=r"data must be .*, got None"):
        pp.search(network(), None, target_flops=0.5)
    assert not list(tmp_path.iterdir())


def narrow(outputs):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, outputs))


def test_a_network_may_score_more_classes_than_the_data_have_but_not_fewer(tmp_path):
    (images, labels), (held, truth) = digits()
    settings = {"target_flops": 0.5, "epochs": 1, "quiet": True}
    with pytest.raises(pp.UserError, match=r"'Sequential' must give 10 scores .* shape \(9,\)"):
        pp.prune(narrow(9), digits(), "taylor-by-price", out=tmp_path / "few", **settings)
    many = pp.prune(narrow(12), digits(), "taylor-by-price", out=tmp_path / "many", **settings)
    assert many.model(images[:2]).shape == (2, 12)
    assert many.accuracy == many.evaluation.accuracy
    assert (many.flops_fraction, many.params_fraction, many.test_accuracy) == (
        many.evaluation.flops_fraction, many.evaluation.params_fraction, None
    )  # fmt: skip
    stray = labels.clone()
    stray[3] = 10
    with pytest.raises(pp.UserError, match="or correct the labels if none should be 10"):
        pp.prune(narrow(10), ((images, stray), (held, truth)), "taylor-by-price",
                 out=tmp_path / "stray", **settings)  # fmt: skip


def test_images_without_a_channel_axis_are_told_how_to_get_one(tmp_path):
    (images, labels), (held, truth) = digits()
    flat = (images[:, 0], labels), (held[:, 0], truth)
    with pytest.raises(pp.UserError, match=r"add a channel axis to the images: images\[:, None\]"):
        pp.prune(network(), flat, "taylor-by-price", target_flops=0.5, out=tmp_path / "flat")


NARROWER = ("--scores", "taylor,l2", "--schedules", "one-shot,gradual", "--ensemble-images", 1024)


@pytest.mark.parametrize("words", [NARROWER, pytest.param((), marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_front(words, tmp_path):
    """And the same trials: presets, screened, varied and sampled ones."""
    fronts, trials = [], []
    for name in "ab":
        out = tmp_path / name
        done = call("search", "--target-flops", "0.4", "--trials", 14, "--workers", 1, "--epochs",
                    0.5, "--dense-epochs", 2, "--seed", 7, "--quiet", "--out", out,
                    *words)  # fmt: skip
        assert done.returncode == 0, done.stderr
        fronts.append(without_times(json.loads((out / "front.json").read_text())))
        found = read_trial_records(out / "journal.log").trials("search")
        trials.append([(t.params, t.values, t.user_attrs["job"]["origin"]) for t in found])
    assert fronts[0] == fronts[1]
    assert trials[0] == trials[1]
    kinds = {origin.partition(":")[0] for *_, origin in trials[0]}
    assert {"preset", "screened", "refined", "sampled"} <= kinds


def plugin_search(plugin, folder, *words):
    return subprocess.run(
        command("search", *words, "--plugin", plugin), capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=200,
    )  # fmt: skip


def test_a_score_from_a_file_works_in_two_workers_and_after_a_resume(tmp_path):
    plugin, folder = tmp_path / "mine.py", tmp_path / "run"
    plugin.write_text(readme_block("plugin"))
    assert len(plugin.read_text().strip().splitlines()) < 10
    words = ("--target-flops", "0.4", "--trials", 4, "--workers", 2, "--epochs", 1, "--seed", 3,
             "--dense-epochs", 2, "--schedules", "one-shot", "--allocations", "global-threshold",
             "--scores", "max-weight,taylor", "--no-screening", "--out", folder)  # fmt: skip
    done = plugin_search(plugin, folder, *words)
    assert done.returncode == 0, done.stderr
    assert "max-weight" in done.stdout
    config = json.loads((folder / "config.json").read_text())
    assert config["plugins"][0]["path"] == str(plugin)
    assert len(config["plugins"][0]["sha256"]) == 64
    (folder / "front.json").unlink()
    resumed = plugin_search(plugin, folder, "--resume", folder, "--trials", 6)
    assert resumed.returncode == 0, resumed.stderr
    missing = call_here("search", "--resume", folder)
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert f"add --plugin {plugin}" in missing.stderr
    plugin.write_text(plugin.read_text() + "\n# changed\n")
    changed = call_here("search", "--plugin", plugin, "--resume", folder)
    assert (changed.returncode, changed.stderr.count("\n")) == (2, 1)
    assert "another content" in changed.stderr
    plugin.unlink()
    gone = call_here("search", "--plugin", plugin, "--resume", folder)
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)


def test_a_score_from_an_installed_package_is_found(tmp_path):
    (tmp_path / "extra.py").write_text(readme_block("plugin"))
    info = tmp_path / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[paretoprune.plugins]\nextra = extra\n")
    code = (
        "from paretoprune.search.optimizer.plugins import load_plugins; load_plugins(())\n"
        "from paretoprune.analysis.scores import all_scores; print('max-weight' in all_scores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"})  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr


def test_a_plugin_that_fails_is_one_line(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("raise RuntimeError('not today')")
    words = ("--plugin", plugin, "--target-flops", "0.4", "--out", tmp_path / "run")
    done = call_here("search", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not today" in done.stderr


def test_a_score_of_the_wrong_shape_is_one_line(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import numpy as np\nimport paretoprune as pp\n\n"
        "@pp.score('three')\ndef three(network):\n    return np.ones(3)\n"
    )
    words = ("--target-flops", "0.4", "--dense-epochs", "1", "--out", tmp_path / "run",
             "--scores", "three,taylor", "--no-screening")  # fmt: skip
    done = plugin_search(plugin, tmp_path, *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "score 'three' must return one number per atom" in done.stderr


@pytest.mark.slow
def test_at_a_tenth_the_answer_beats_the_random_control_by_more_than_its_spread(tmp_path):
    answers, controls = [], []
    for seed in range(3):
        out = tmp_path / str(seed)
        done = call("search", "--target-flops", "0.1", "--seed", seed, "--quiet", "--out", out)
        assert done.returncode == 0, done.stderr
        front = json.loads((out / "front.json").read_text())
        answers.append(front["at_target"]["accuracy"])
        controls.append(front["controls"]["random"]["accuracy"])
    assert np.mean(answers) - np.mean(controls) > np.std(controls, ddof=1), (answers, controls)
