"""What a refused or stopped command leaves: the folders are as they were before."""

import os
import signal
import subprocess
import time

import pytest
import torch
from command_line import ROOT, command, in_process
from model_folders import make_run, pick_into, trained_digits
from safetensors.torch import save_file

from paretoprune.search.storage.run_folder import as_it_was, not_there
from paretoprune.spaces.errors import UserError

NO_SCORE = "import paretoprune as pp\n"
FLAT = "import paretoprune as pp\n@pp.score('flat')\ndef flat(network):\n    return 3\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, a picked folder, wrong weights and wrong plugins."""
    root = tmp_path_factory.mktemp("made")
    model, data = trained_digits()
    front = make_run(root / "run", model, data)
    pick_into(root / "picked", root / "run", front)
    save_file({"features.0.weight": torch.zeros(3, 3)}, str(root / "other.safetensors"))
    (root / "none.py").write_text(NO_SCORE)
    (root / "flat.py").write_text(FLAT)
    (root / "bad.toml").write_text("targets = [0.5]\n[search]\naddress = 'local'\n")
    return root


def listed(folder):
    """Everything below a folder, with sizes."""
    return {
        str(path.relative_to(folder)): path.stat().st_size if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


PRUNE = ("prune", "--policy", "taylor-by-price", "--model", "digits-resnet", "--quiet")
REFUSED = [
    (*PRUNE, "--target-flops", "40"),
    (*PRUNE, "--target-flops", "0.0001"),
    (*PRUNE, "--target-flops", "50M"),
    PRUNE,
    (*PRUNE, "--target-flops", "0.5", "--keep", "nothing"),
    (*PRUNE, "--target-flops", "0.5", "--min-accuracy", "0.5"),
    (*PRUNE, "--target-flops", "0.5", "--weights", "/no/such/file"),
    (*PRUNE, "--target-flops", "0.5", "--weights", "{made}/other.safetensors"),
    (*PRUNE, "--target-flops", "0.5", "--plugin", "{made}/none.py"),
    ("prune", "--policy", "{made}/flat.json", "--plugin", "{made}/flat.py", "--target-flops",
     "0.5", "--dense-epochs", "0.1", "--quiet"),
    ("prune", "--policy", "nosuch", "--target-flops", "0.5"),
    ("prune", "--policy", "l2.json", "--target-flops", "0.5"),
    ("prune", "--policy", "uniform", "--model", "resnet21", "--target-flops", "0.5"),
    ("prune", "--policy", "uniform", "--model", "lenet5", "--target-flops", "0.5"),
    ("prune", "--policy", "uniform", "--data", "numerals", "--target-flops", "0.5"),
    ("prune", "--policy", "uniform", "--data", "folder:/no/such", "--target-flops", "0.5"),
    ("search", "--target-flops", "0.4", "--weights", "/no/such/file"),
    ("search", "--target-flops", "0.4", "--plugin", "{made}/none.py"),
    ("search", "--target-flops", "0.4", "--spread", "0.8,0.2"),
    ("transfer", "/no/such/run", "--target-flops", "0.4"),
    ("pick", "/no/such/run"),
    ("pick", "{made}/run", "--trial", "77"),
    ("pick", "{made}/run", "--max-flops", "0.0001"),
    ("finetune", "{made}/picked", "--data", "numerals"),
    ("finetune", "{made}/picked", "--data", "digits", "--weights", "{made}/other.safetensors"),
    ("finetune", "{made}/picked", "--data", "digits", "--epochs", "0"),
    ("finetune", "{made}/picked", "--data", "digits", "--distill", "2"),
    ("finetune", "{made}/run", "--data", "digits"),
    ("sensitivity", "--model", "digits-resnet", "--data", "digits", "--score", "nosuch"),
    ("sensitivity", "--model", "lenet5", "--data", "digits"),
    ("sensitivity", "--model", "digits-resnet", "--data", "digits", "--images", "0"),
    ("sweep", "{made}/bad.toml", "--quiet"),
    ("report", "/no/such/run"),
]  # fmt: skip


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: " ".join(words)[-60:])
def test_a_refused_command_leaves_its_folder_as_it_was(words, made, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (made / "flat.json").write_text('{"score": "flat"}')
    before = listed(made)
    words = [word.format(made=made) for word in words]
    code, output = in_process(capsys, *words, "--out", tmp_path / "deep" / "out")
    assert code == 2, output
    assert output.err.strip().count("\n") == 0
    assert "Traceback" not in output.err
    assert not list(tmp_path.iterdir())
    assert listed(made) == before


@pytest.mark.parametrize(
    "words",
    [("export", "{made}/picked", "--to", "torch", "--out", "out.onnx"),
     ("export", "{made}/picked", "--to", "torch", "--out", "no/out.pt2"),
     ("export", "{made}/run", "--to", "torch", "--out", "out.pt2"),
     ("train", "--model", "resnet21", "--data", "digits", "--out", "out.safetensors"),
     ("train", "--model", "lenet5", "--data", "digits", "--out", "out.safetensors"),
     ("train", "--model", "digits-resnet", "--data", "digits", "--weights",
      "{made}/other.safetensors", "--out", "out.safetensors"),
     ("train", "--model", "digits-resnet", "--data", "digits", "--epochs", "1",
      "--learning-rate", "1e30", "--out", "out.safetensors"),
     ("report", "{made}/run", "--svg", "out.png"), ("report", "{made}/run", "--png", "out.txt")],
    ids=lambda words: " ".join(words)[-60:],
)  # fmt: skip
def test_a_refused_command_leaves_no_file(words, made, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = listed(made)
    code, output = in_process(capsys, *(word.format(made=made) for word in words))
    assert code == 2, output
    assert not list(tmp_path.iterdir())
    assert listed(made) == before


def test_the_corrected_prune_works_at_once_with_the_same_folder(capsys, tmp_path):
    out = tmp_path / "out"
    words = (*PRUNE, "--epochs", "0.1", "--dense-epochs", "0.1", "--out", out)
    assert in_process(capsys, *words, "--target-flops", "0.0001")[0] == 2
    assert in_process(capsys, *words, "--target-flops", "0.5")[0] == 0
    assert (out / "recipe.json").is_file()


def test_a_refused_pick_leaves_nothing_and_the_corrected_one_works(made, capsys, tmp_path):
    weights = made / "run" / "trials" / "2" / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])
    try:
        code, _ = in_process(capsys, "pick", made / "run", "--trial", 2, "--out", tmp_path / "x")
    finally:
        weights.write_bytes(content)
    assert code == 2
    assert not list(tmp_path.iterdir())
    code, _ = in_process(capsys, "pick", made / "run", "--trial", 2, "--out", tmp_path / "x")
    assert code == 0


def test_a_refusal_deletes_nothing_that_was_there_before(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")

    def end_by(error):
        with as_it_was(tmp_path):
            (tmp_path / "theirs").mkdir()
            (tmp_path / "theirs" / "file").touch()
            raise error

    with pytest.raises(UserError):
        end_by(UserError("refused"))
    assert listed(tmp_path) == {"mine": None, "mine/file": 4}
    with pytest.raises(KeyError):  # a fault of ours: what there is may tell why
        end_by(KeyError())
    assert (tmp_path / "theirs" / "file").exists()
    assert not_there(tmp_path / "a" / "b") == (tmp_path / "a" / "b", tmp_path / "a")


@pytest.mark.parametrize("words", [PRUNE, ("search", "--quiet")])
def test_a_user_s_folder_with_files_is_refused_and_stays(words, capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    code, output = in_process(capsys, *words, "--target-flops", "0.5", "--out", tmp_path)
    assert code == 2
    assert "--out must be an empty folder" in output.err
    assert listed(tmp_path) == {"mine.txt": 4}


SPREAD = ("--target-flops", "0.5", "--spread", "0.001,0.002")
LATE = [SPREAD, ("--target-flops", "0.0001"),
        ("--target-flops", "0.5", "--weights", "{made}/other.safetensors")]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, marks=[] if words is SPREAD else pytest.mark.slow) for words in LATE],
)
def test_a_search_that_is_refused_after_its_start_leaves_nothing(words, made, capsys, tmp_path):
    words = [word.format(made=made) for word in words]
    code, output = in_process(capsys, "search", *words, "--quiet", "--out", tmp_path / "a" / "r")
    assert code == 2, output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_search_that_is_stopped_at_once_leaves_nothing_or_goes_on(tmp_path):
    out = tmp_path / "run"
    words = ("search", "--target-flops", "0.5", "--trials", "1", "--dense-epochs", "30")
    driver = subprocess.Popen(
        command(*words, "--out", out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not out.exists() and time.monotonic() < end:
        time.sleep(0.05)
    driver.send_signal(signal.SIGINT)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert not out.exists() or f"--resume {out}" in said
