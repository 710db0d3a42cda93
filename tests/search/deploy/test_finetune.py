"""finetune: same seed same network, best on validation kept, resumed after a kill, two workers."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from command_line import ROOT, command, in_process
from model_folders import make_run, pick_into, save_cut, trained_digits
from torch import nn

import paretoprune as pp
from paretoprune.search.results.model_card import render_model_card
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.records.recipe import FineTuneRecord, read_recipe
from paretoprune.trainers.data.splits import Split
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.pruning.serialization import (
    NEXT_WEIGHTS_FILE,
    PICKED_WEIGHTS_FILE,
    save_network,
    to_safetensors_bytes,
)
from paretoprune.trainers.runtime.device import DeviceConfig
from paretoprune.trainers.training.checkpoint import weights_digest
from paretoprune.trainers.training.distributed import ProcessGroup, shard_split
from paretoprune.trainers.training.finetune import FineTuneJob, run_fine_tune
from paretoprune.trainers.training.optimizer import TrainingSettings

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune") / "run"
    model, data = trained_digits()
    return folder, make_run(folder, model, data), data


@pytest.fixture
def picked(scene, tmp_path):
    return pick_into(tmp_path / "picked", scene[0], scene[1])


def weights_of(folder):
    return hashlib.sha256((folder / PICKED_WEIGHTS_FILE).read_bytes()).hexdigest()


def finetune(capsys, *words):
    return in_process(capsys, "finetune", *words)


def test_the_same_command_gives_the_same_network_and_its_true_figures(
    scene, picked, tmp_path, capsys
):
    before, again = read_recipe(picked / "recipe.json"), tmp_path / "again"
    shutil.copytree(picked, again)
    for folder in (picked, again):
        code, output = finetune(capsys, folder, "--data", "digits", "--epochs", 2)
        assert code == 0, output.err
        assert "step 16/16, ETA 0 s" in output.out
    assert weights_of(picked) == weights_of(again)
    recipe, data = read_recipe(picked / "recipe.json"), scene[2]
    small = pp.load(picked)
    assert recipe.figures.accuracy == evaluate(small, data.validation, data).accuracy
    assert recipe.figures.test_accuracy == evaluate(small, data.test, data).accuracy
    assert recipe.figures.accuracy > before.figures.accuracy == recipe.fine_tune.accuracy_before
    assert recipe.fine_tune.distill == 0.7
    assert f"{recipe.figures.accuracy:.4f}" in (picked / "README.md").read_text()
    assert not (picked / "finetune").exists()
    code, output = finetune(capsys, picked, "--data", "digits", "--epochs", 2)
    assert "finished before" in output.out
    assert weights_of(picked) == weights_of(again)


def test_a_fine_tune_never_leaves_a_worse_network(picked, capsys):
    accuracy = read_recipe(picked / "recipe.json").figures.accuracy
    words = ("--data", "digits", "--epochs", 1, "--learning-rate", 3, "--distill", 0)
    code, output = finetune(capsys, picked, *words)
    assert code == 0, output.err
    recipe = read_recipe(picked / "recipe.json")
    assert recipe.figures.accuracy >= accuracy
    assert recipe.fine_tune.best_epoch == 0 or recipe.figures.accuracy > accuracy


def job_in(work, scene, save_seconds=0.0):
    work.mkdir(exist_ok=True)
    run, _, data = scene
    return FineTuneJob(
        pp.load(run / "trials/1"), data, TrainingSettings(epochs=3, distill=0.0), 5, None,
        DeviceConfig(), work,
        {"seed": 5}, save_seconds,
    )  # fmt: skip


class Killed(BaseException):
    pass


def test_taken_up_from_its_checkpoint_it_ends_as_if_never_stopped(scene, tmp_path):
    whole = job_in(tmp_path / "whole", scene)
    best, test = run_fine_tune(whole, ProcessGroup(), lambda *_: None)
    seen = []

    def kill_at_two(progress, _):
        seen.append(progress.epoch)
        if progress.epoch == 2:
            raise Killed

    broken = job_in(tmp_path / "broken", scene)
    with pytest.raises(Killed):
        run_fine_tune(broken, ProcessGroup(), kill_at_two)
    again = job_in(tmp_path / "broken", scene)
    assert run_fine_tune(again, ProcessGroup(), lambda p, _: seen.append(p.epoch)) == (best, test)
    assert seen == [1.0, 2.0, 3.0]
    assert weights_digest(again.model) == weights_digest(whole.model)


def test_killed_between_recipe_and_weights_the_folder_still_loads(scene, picked):
    recipe, small = read_recipe(picked / "recipe.json"), pp.load(scene[0] / "trials/2")
    other = pick_into(picked.parent / "other", scene[0], scene[1], trial=2)
    newer = read_recipe(other / "recipe.json")
    (picked / NEXT_WEIGHTS_FILE).write_bytes(to_safetensors_bytes(small))
    images = torch.rand(2, 1, 8, 8)
    old = pp.load(picked)(images)  # the recipe still names the old ones
    shutil.copy(other / "recipe.json", picked / "recipe.json")
    assert torch.equal(pp.load(picked)(images), small(images))
    assert not torch.equal(old, small(images))
    save_network(picked, newer, to_safetensors_bytes(small))
    assert not (picked / NEXT_WEIGHTS_FILE).exists()
    assert recipe.weights_sha256 != newer.weights_sha256


def start(*words):
    return subprocess.Popen(
        command("finetune", *words), cwd=ROOT, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_after_a_kill_and_a_stop_the_same_command_goes_on(picked, tmp_path, capsys):
    whole = shutil.copytree(picked, tmp_path / "whole")
    words = ("--data", "digits", "--epochs", 20, "--seed", 3)
    before = pp.load(picked)(torch.ones(1, 1, 8, 8))
    for stop, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = start(picked, *words)
        while "epoch 3 " not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        process.send_signal(stop)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == code
        assert torch.equal(pp.load(picked)(torch.ones(1, 1, 8, 8)), before)
    assert output.endswith(
        f"to continue: paretoprune finetune {picked} --data digits --epochs 20 --seed 3\n"
    )
    assert finetune(capsys, picked, *words)[0] == 0
    assert finetune(capsys, whole, *words)[0] == 0
    assert weights_of(picked) == weights_of(whole)


@pytest.mark.parametrize("save_seconds", [0.0, 60.0])
def test_other_settings_do_not_take_up_a_fine_tune(save_seconds, scene, tmp_path):
    with pytest.raises(Killed):
        run_fine_tune(job_in(tmp_path, scene, save_seconds), ProcessGroup(), kill_after_a_save())
    assert (tmp_path / "checkpoint.safetensors").exists() == (save_seconds == 0)
    other = replace(job_in(tmp_path, scene), settings={"seed": 6})
    with pytest.raises(pp.UserError, match="got seed = 6 instead of 5"):
        run_fine_tune(other, ProcessGroup(), lambda *_: None)


def kill_after_a_save():
    def report(progress, _):
        if progress.epoch == 1:
            raise Killed

    return report


WRONG = [
    (("--epochs", 0), "--epochs must be above 0 and below 1e6, got 0"),
    (("--distill", 2), "--distill must be in [0, 1], got 2"),
    (("--learning-rate", -1), "--learning-rate must be in (0, 10)"),
    (("--batch-size", 1), "--batch-size must be at least 2"),
    (("--weights", "/no/such/file"), "--weights must be a file"),
    (("--out", "/dev/null/x"), "--out must be a folder"),
    (("--data", "nowhere"), "nowhere"),
    (("--model", "nowhere:build"), "nowhere"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_wrong_input_is_one_line_and_exit_2(words, message, picked, capsys):
    code, output = finetune(capsys, picked, *(("--data", "digits") if "--data" not in words
                                                else ()), *words)  # fmt: skip
    assert (code, output.err.count("\n")) == (2, 1)
    assert message in output.err
    assert not (picked / "finetune").exists()


def test_other_data_under_the_same_name_are_another_fine_tune_and_the_card_tells_of_both(
    picked, scene, capsys
):
    data = scene[2]
    rows = [(part.images.numpy(), part.labels.numpy()) for part in (data.train, data.validation)]
    first = pp.finetune(picked, rows, epochs=1, quiet=True)
    assert pp.finetune(picked, rows, epochs=1).recipe == first.recipe
    assert "finished before" in capsys.readouterr().out
    flipped = [(images, labels[::-1].copy()) for images, labels in rows]
    again = pp.finetune(picked, flipped, epochs=1, quiet=True)
    assert again.recipe.earlier == (first.recipe.fine_tune,)
    assert again.recipe.fine_tune.data_sha256 != first.recipe.fine_tune.data_sha256
    card = (picked / "README.md").read_text()
    assert card.count("Fine-tuned for 1 epoch at") == 2
    assert "Accuracies are on data passed in from Python." in card
    assert read_recipe(picked / "recipe.json") == again.recipe


@pytest.mark.parametrize("wrong", [{"epochs": "1"}, {"distill": True}])
def test_words_in_the_place_of_numbers_are_one_line_from_python_too(wrong, picked):
    with pytest.raises(UserError, match="must be a number, got"):
        pp.finetune(picked, "digits", **wrong)


def test_dense_accuracy_stands_only_beside_that_on_the_same_data(picked):
    recipe = read_recipe(picked / "recipe.json")
    tuned = FineTuneRecord("folder:x", 1.0, 0.02, 128, 0.0, 0, 1, 1.0, 0.5, "b")
    own = replace(recipe, source=replace(recipe.source, data="digits", data_sha256="a"))
    other = replace(own, fine_tune=tuned)
    same = replace(own, fine_tune=replace(tuned, data_sha256="a"))
    dense = f"| accuracy, validation | {recipe.dense.accuracy:.4f} |"
    assert [dense in render_model_card(each, "x") for each in (own, same, other)] == [
        True,
        True,
        False,
    ]
    assert "Accuracies are on `digits`." in render_model_card(own, "x")
    assert "Accuracies are on `folder:x`." in render_model_card(other, "x")


def test_without_the_dense_weights_there_is_no_teacher_and_that_is_said(picked, capsys):
    dense = (picked / "dense.safetensors").rename(picked.parent / "dense.safetensors")
    words = (picked, "--data", "digits", "--epochs", 1)
    code, output = finetune(capsys, *words, "--distill", 0.5)
    assert (code, output.err.count("\n")) == (2, 1)
    assert "add --weights FILE" in output.err
    code, output = finetune(capsys, *words, "--distill", 0.5, "--weights", dense)
    assert code == 0, output.err
    assert "distilled with weight 0.5" in output.out
    code, output = finetune(capsys, *words, "--weights", dense, "--distill")
    assert code == 0, output.err
    assert "distilled with weight 0.7" in output.out
    code, output = finetune(capsys, *words)
    assert code == 0, output.err
    assert "no distillation: the folder has no dense weights" in output.out
    assert "distilled" not in output.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--distill",), "DIR"),  # a weight is not asked for
        (("--distill", "--epochs", 1), "DIR"),
        (("--distill", -0.5, "DIR", "--data", "digits"), "--distill must be in [0, 1], got -0.5"),
        (("--epochs",), "'--epochs' requires an argument; see paretoprune finetune --help"),
    ],
)
def test_distill_stands_with_or_without_its_weight(words, message, capsys):
    code, output = finetune(capsys, *words)
    assert (code, output.err.count("\n")) == (2, 1)
    assert message in output.err


def test_a_trials_own_folder_is_left_to_its_run(scene, tmp_path, capsys):
    trial, words = scene[0] / "trials/1", ("--data", "digits", "--epochs", 1)
    code, output = finetune(capsys, trial, *words)
    assert (code, output.err.count("\n")) == (2, 1)
    assert "--out" in output.err
    before = sorted(path.name for path in trial.iterdir())
    code, output = finetune(capsys, trial, *words, "--out", tmp_path / "tuned")
    assert code == 0, output.err
    assert sorted(path.name for path in trial.iterdir()) == before
    assert read_recipe(tmp_path / "tuned/recipe.json").figures.macs == scene[1].points[1].macs


def test_data_of_another_kind_is_refused(tmp_path, capsys):
    save_cut(tmp_path / "net", "lenet5", (1, 28, 28))
    code, output = finetune(capsys, tmp_path / "net", "--data", "digits", "--out",
                              tmp_path / "out")  # fmt: skip
    assert (code, output.err.count("\n")) == (2, 1)
    assert "--data must have 10 classes of shape (1, 28, 28)" in output.err


def own_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


def test_from_python_with_arrays_and_a_network_of_ones_own(scene, tmp_path):
    save_cut(tmp_path / "net", "own", (1, 8, 8), model=own_network())
    pairs = tuple((s.images, s.labels) for s in (scene[2].train, scene[2].validation))
    settings = {"epochs": 2, "out": tmp_path / "out", "quiet": True}
    with pytest.raises(pp.UserError, match="model="):
        pp.finetune(tmp_path / "net", pairs, **settings)
    tuned = pp.finetune(tmp_path / "net", pairs, model=own_network(), **settings)
    assert tuned.figures.accuracy > 0.5
    assert tuned.figures.test_accuracy is None
    assert tuned.widths["0"] == tuned.model[0].out_channels < 8
    images = scene[2].validation.images[:5].float()
    again = pp.load(tmp_path / "out", model=own_network())
    assert torch.equal(again(images), tuned.model(images))
    assert "model=dense" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("size", [2, 3])
def test_the_shares_of_a_split_are_disjoint_and_equal_where_asked(size):
    split = Split(torch.arange(11.0)[:, None], torch.arange(11))
    parts = [shard_split(split, ProcessGroup(rank, size), equal=False) for rank in range(size)]
    assert sorted(torch.cat([part.labels for part in parts]).tolist()) == list(range(11))
    equal = [shard_split(split, ProcessGroup(rank, size), equal=True) for rank in range(size)]
    assert {len(part) for part in equal} == {11 // size}


@pytest.mark.slow
def test_two_processes_under_torchrun_write_one_good_network(scene, picked):
    before = read_recipe(picked / "recipe.json").figures.accuracy
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "paretoprune", "finetune", str(picked), "--data", "digits", "--epochs", "2"],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recipe, data = read_recipe(picked / "recipe.json"), scene[2]
    assert done.stdout.count("written to") == 1
    assert recipe.fine_tune.processes == 2
    assert recipe.figures.accuracy > before
    assert recipe.figures.accuracy == evaluate(pp.load(picked), data.validation, data).accuracy
    assert json.loads((picked / "recipe.json").read_text())["schema"] == 2


PAIR = """
import sys, torch
from torch import nn
from paretoprune.trainers.training.distributed import in_step, joined, total
images, labels = torch.load(sys.argv[1], weights_only=True)
with joined() as team:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    mine = slice(team.rank, None, team.size)
    together = in_step(model, team)  # kept: it averages when backward runs
    loss = nn.functional.cross_entropy(together(images[mine]), labels[mine])
    loss.backward()
    mean = total([float(loss)], team, "cpu")[0] / team.size
    if team.leads:
        torch.save([mean, model[1].weight.grad], sys.argv[2])
"""


@pytest.mark.slow
def test_two_processes_take_the_gradient_of_the_whole_batch(tmp_path):
    script, batch = tmp_path / "pair.py", tmp_path / "batch.pt"
    script.write_text(PAIR)
    torch.save([torch.rand(8, 1, 8, 8), torch.arange(8)], batch)
    found = []
    for size in ("1", "2"):
        out = tmp_path / f"{size}.pt"
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
             size, str(script), str(batch), str(out)],
            check=True, cwd=ROOT, env=ENVIRONMENT, timeout=200, capture_output=True,
        )  # fmt: skip
        found.append(torch.load(out, weights_only=True))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-7)
