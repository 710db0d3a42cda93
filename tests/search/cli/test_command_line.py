"""The command line: fast help; a wrong input is one line with rule, value and remedy, exit 2."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import ROOT, call_here, command
from safetensors.torch import save_file

from paretoprune.search.cli.app import app, main
from paretoprune.search.config.settings import SearchSettings
from paretoprune.search.driver.prepare import load_inputs, resolve_model
from paretoprune.search.driver.resume import check_trials_not_reduced
from paretoprune.search.storage.run_folder import RunFolder, create_run_folder
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.version import VERSION

COMMANDS = [command.name for command in app.registered_commands]


def run_in_process(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    return exit_.value.code, capsys.readouterr()


def test_help_takes_less_than_half_a_second():
    times = [1.0]
    while min(times) >= 0.5 and len(times) < 12:  # other load on the machine does not count
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "search.py", "--help"], capture_output=True, text=True, cwd=ROOT
        )
        times.append(time.perf_counter() - start)
        assert done.returncode == 0
    assert "--target-flops" in done.stdout
    assert min(times) < 0.5, times


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cli.app", {"torch", "torchvision", "ray", "optuna", "sklearn", "numpy", "pandas"}),
        ("execution.ray_executor", {"ray.tune", "pandas", "torchvision", "sklearn"}),
    ],
)
def test_modules_that_users_and_workers_wait_for_import_nothing_heavy(module, heavy):
    code = f"import sys, paretoprune.search.{module}\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_version_prints_the_version():
    done = call_here("--version")
    assert (done.returncode, done.stdout) == (0, f"paretoprune {VERSION}\n")


def test_no_summary_in_the_list_of_commands_is_cut_off():
    text = call_here("--help").stdout
    assert "..." not in text.replace("[ARGS]...", "")
    assert all(f"  {name} " in text for name in COMMANDS)


def test_every_option_of_the_contract_exists_and_flops_are_explained():
    text = call_here("search", "--help").stdout
    for name in ("trials", "workers", "seed", "out", "target-flops", "target-params", "model",
                 "data", "weights", "address", "gpus-per-trial",
                 "resume", "quiet", "plugin"):  # fmt: skip
        assert f"--{name}" in text, name
    assert "MACs" in call_here("--help").stdout
    for name in ("search", "front", "pick", "inspect"):
        assert name in call_here("--help").stdout


WRONG = [
    (("--target-flops", "0"), "--target-flops must be in (0, 1], got 0;"),
    (("--target-flops", "1.5"), "got 1.5;"),
    (("--target-flops", "40"),
     "--target-flops must be in (0, 1], got 40; for forty percent write 0.4"),
    (("--target-flops", "nan"), "--target-flops must be a finite number in (0, 1], got nan;"),
    (("--target-params", "-1"), "got -1;"),
    ((), "--target-flops or --target-params must be given"),
    (("--target-flops", "0.4", "--trials", "0"), "--trials must be at least 1, got 0"),
    (("--target-flops", "0.4", "--trials", "many"), "--trials"),
    (("--target-flops", "0.4", "--trails", "3"), "No such option: --trails"),
    (("--target-flops", "0.4", "--workers", "0"), "--workers must be at least 1, got 0"),
    (("--target-flops", "0.4", "--seed", "-1"), "--seed must be at least 0, got -1"),
    (("--target-flops", "0.4", "--epochs", "nan"),
     "--epochs must be finite and above 0, got nan"),
    (("--target-flops", "0.4", "--epochs", "inf"), "must be finite and above 0, got inf"),
    (("--target-flops", "0.4", "--schedules", ","), "--schedules must name at least one, got"),
    (("--target-flops", "0.4", "--allocations", ""), "--allocations must name at least one"),
    (("--target-flops", "0.4", "--scores", " "), "write all to use every one"),
    (("--target-flops", "0.4", "--scores", "tayler"), "--scores must be one of activation-mean"),
    (("--target-flops", "0.4", "--gpus-per-trial", "-1"), "--gpus-per-trial must be at least 0"),
    (("--target-flops", "0.4", "--gpus-per-trial", "1.5"),
     "--gpus-per-trial must be a whole number above 1, got 1.5; write 2"),
    (("--target-flops", "0.4", "--address", "local"),
     "--address must be a running Ray cluster, got local"),
    (("--target-flops", "0.4", "--artifacts", " "), "--artifacts must be a URL or a folder"),
    (("--target-flops", "0.4", "--sampler", "nsga"),
     "--sampler must be one of tpe, nsga2, gp, random, got 'nsga'"),
    (("--target-flops", "0.4", "--model", "resnet21"), "resnet21"),
    (("--target-flops", "0.4", "--model", "nowhere:build"), "nowhere"),
    (("--target-flops", "0.4", "--model", "torchvision:resnet19"), "resnet19"),
    (("--target-flops", "0.4", "--data", "numerals"), "numerals"),
    (("--target-flops", "0.4", "--data", "folder:/no/such/place"), "/no/such/place"),
    (("--target-flops", "0.4", "--weights", "/no/such/file"), "--weights must be a file"),
    (("--target-flops", "0.4", "--plugin", "/no/such/plugin.py"), "--plugin must be"),
    (("--target-flops", "0.0001"), "--target-flops must be at least 0."),
    (("--target-flops", "50M"),
     "--target-flops must be below the dense network's 276,720, got 50,000,000; for forty"),
    (("--target-flops", "1"), "--target-flops must be below the dense network's 276,720"),
    (("--target-params", "100%", "--target-flops", "100%"), "must be below the dense"),
    (("--target-flops", "0.4", "--target-params", "9M"), "--target-params must be below the"),
    (("--target-flops", "10"), "for 10 percent write 0.1"),
    (("--target-flops", "0.4", "--out", "/dev/null/run"), "--out must be a folder"),
    (("--target-flops", "0.4", "--out", "s3://bucket/run"), "got s3://bucket/run; to store"),
    (("--resume", "/no/such/run"), "RUN must be the folder of a search"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_wrong_input_is_one_line_and_exit_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = run_in_process(capsys, "search", *words)
    assert code == 2
    assert message in output.err
    assert output.err.count("\n") == 1
    assert "Traceback" not in output.err + output.out


@pytest.mark.parametrize(
    "words", [("nope",), (), ("front",), ("front", "/no/such/run"), ("pick", "/no/such/run"),
              ("pick", "/no/such/run", "--out", "x"), ("inspect", "--model", "resnet21"),
              ("inspect", "--model", "resnet20", "--input", "a,b")],
)  # fmt: skip
def test_wrong_input_to_other_commands_is_one_line_and_exit_2(words, capsys):
    code, output = run_in_process(capsys, *words)
    assert code == 2
    assert output.err.count("\n") == 1


def test_wrong_input_ends_without_a_traceback_in_a_real_process(tmp_path):
    done = call_here("search", "--target-flops", "1.5", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "--target-flops must be in (0, 1], got 1.5; for 1.5 percent write 0.015\n"
    )
    assert not list(tmp_path.iterdir())


def test_weights_of_another_architecture_are_refused(capsys, tmp_path):
    weights = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(3, 3)}, str(weights))
    words = ("search", "--target-flops", "0.4", "--weights", weights, "--out", tmp_path / "run")
    code, output = run_in_process(capsys, *words)
    assert code == 2
    assert output.err.count("\n") == 1
    assert "features.0.weight" in output.err or "weights" in output.err


def test_a_run_with_dense_weights_does_not_read_the_weights_file_again(tmp_path):
    settings = SearchSettings(weights=Path("moved.safetensors"))
    inputs, run = load_inputs(settings, model=None, data=None), RunFolder(tmp_path)
    with pytest.raises(UserError, match="moved"):
        resolve_model(inputs, run)
    run.dense.touch()
    assert resolve_model(inputs, run) is not None


def test_a_folder_that_is_not_empty_is_left_as_it_is(capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    code, output = run_in_process(capsys, "search", "--target-flops", "0.4", "--out", tmp_path)
    assert code == 2
    assert "--out must be an empty folder" in output.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def folder_with_mode(folder, mode):
    """Make a folder with these permissions; skip for a user, such as root, who ignores them."""
    folder.mkdir()
    folder.chmod(mode)
    if os.access(folder, os.W_OK):
        pytest.skip("file permissions do not apply to this user")
    return folder


@pytest.mark.parametrize(
    "words", [("search", "--target-flops", "0.4", "--model", "resnet20", "--weights"),
              ("search", "--target-flops", "0.4", "--weights"), ("pick",), ("sweep",),
              ("sensitivity", "--model", "digits-resnet", "--data", "digits", "--out")],
)  # fmt: skip
def test_a_path_that_is_too_long_is_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = run_in_process(capsys, *words, "9" * 400)
    assert code == 2
    assert "999" in output.err
    assert "File name too long" in output.err
    assert output.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_path_without_permission_is_one_line(capsys, tmp_path):
    locked = folder_with_mode(tmp_path / "locked", 0)
    code, output = run_in_process(
        capsys, "search", "--target-flops", "0.4", "--data", f"folder:{locked / 'images'}"
    )
    assert code == 2
    assert output.err == (
        f"a path must be accessible to you, got {locked}/images (Permission denied); change its "
        "permissions, or use another path\n"
    )


def test_a_folder_that_cannot_be_written_is_refused(capsys, tmp_path):
    locked = folder_with_mode(tmp_path / "locked", 0o500)
    code, output = run_in_process(
        capsys, "search", "--target-flops", "0.4", "--out", locked / "run"
    )
    assert code == 2
    assert "--out must be" in output.err


def test_the_folder_of_a_running_search_is_locked(run, capsys):
    with open(run.folder / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, output = run_in_process(capsys, "search", "--resume", run.folder)
    assert code == 2
    assert "one search at a time" in output.err


def test_a_folder_with_only_a_lock_file_counts_as_empty(tmp_path):
    (tmp_path / ".lock").touch()
    assert create_run_folder(tmp_path).root == tmp_path


def test_a_folder_that_is_no_run_cannot_be_resumed(capsys, tmp_path):
    code, output = run_in_process(capsys, "search", "--resume", tmp_path)
    assert code == 2
    assert "without config.json" in output.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99}', "\0", '{"schema": 1}'])
def test_a_broken_config_is_one_line(content, capsys, tmp_path):
    (tmp_path / "config.json").write_text(content)
    code, output = run_in_process(capsys, "search", "--resume", tmp_path)
    assert code == 2
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}'])
def test_a_broken_front_is_one_line(content, capsys, tmp_path, run):
    (tmp_path / "config.json").write_text((run.folder / "config.json").read_text())
    (tmp_path / "front.json").write_text(content)
    code, output = run_in_process(capsys, "front", tmp_path)
    assert code == 2
    assert output.err.count("\n") == 1


def test_a_changed_option_is_refused_on_resume(run, capsys):
    code, output = run_in_process(capsys, "search", "--resume", run.folder, "--seed", 9)
    assert code == 2
    assert "--seed" in output.err


def test_trials_of_a_resumed_run_may_only_grow():
    kept = SearchSettings(target_flops="0.4", trials=8)
    assert [check_trials_not_reduced(count, kept) for count in (8, 9)] == [8, 9]
    with pytest.raises(UserError, match="may only grow with resume, got 7 of 8"):
        check_trials_not_reduced(7, kept)


def test_inspect_shows_groups_cost_and_the_lowest_reachable_size():
    done = call_here("inspect", "--model", "digits-resnet")
    assert done.returncode == 0, done.stderr
    for word in ("groups", "atoms", "FLOPs %", "lowest reachable", "protected"):
        assert word in done.stdout


def test_output_into_a_closed_pipe_ends_quietly(run):
    process = subprocess.Popen(
        command("front", run.folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait(30)


def test_the_cache_is_shown_and_cleared(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PARETOPRUNE_CACHE", str(tmp_path))
    (tmp_path / "arrays" / "key").mkdir(parents=True)
    (tmp_path / "arrays" / "key" / "train_images.npy").write_bytes(bytes(3 << 20))
    (tmp_path / "baselines").mkdir()
    assert "3 MiB" in call_here("cache").stdout
    assert "3 MiB of decoded data deleted" in call_here("cache", "--clear").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["baselines"]
    assert "0 MiB" in call_here("cache").stdout
