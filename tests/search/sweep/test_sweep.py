"""Running a sweep: its folders, shared work, resuming, its table and page."""

import json
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from command_line import ROOT, call, call_here, command

SETTINGS = """
[search]
trials = 1
workers = 1
epochs = 0.2
dense_epochs = 1
scores = ["taylor"]
screening = false
schedules = "one-shot"
allocations = "global-threshold"
ensemble_images = 1024
"""
NAME = "digits-resnet-digits-flops-"


@dataclass(frozen=True)
class Swept:
    """The folder of a sweep, its file and what the command printed."""

    file: Path
    folder: Path
    done: subprocess.CompletedProcess

    @property
    def runs(self):
        values = json.loads((self.folder / "sweep.json").read_text())["runs"]
        return {run["name"].removeprefix(NAME): run for run in values}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two targets that can be reached, and one between them that cannot."""
    home = tmp_path_factory.mktemp("sweep")
    file, folder = home / "s.toml", home / "out"
    file.write_text("targets = [0.5, 0.001, 0.4]" + SETTINGS)
    return Swept(file, folder, call("sweep", file, "--out", folder))


def test_a_failed_run_is_reported_and_the_others_run(swept):
    assert swept.done.returncode == 1, swept.done.stderr
    assert {k: run["state"] for k, run in swept.runs.items()} == {
        "0.5": "finished",
        "0.001": "failed",
        "0.4": "finished",
    }
    assert "must be at least 0.00" in swept.runs["0.001"]["reason"]
    assert f"{NAME}0.001: --target-flops must be" in swept.done.stdout
    assert "Traceback" not in swept.done.stdout + swept.done.stderr


def test_runs_of_one_dense_network_train_and_measure_it_once(swept):
    first, second = (swept.folder / f"{NAME}{target}" for target in ("0.5", "0.4"))
    assert (first / "dense.safetensors").samefile(second / "dense.safetensors")
    tables = {path.name for path in (first / "evidence").glob("*.npz")}
    assert tables
    assert tables == {path.name for path in (second / "evidence").glob("*.npz")}
    assert all((first / "evidence" / t).samefile(second / "evidence" / t) for t in tables)
    assert swept.done.stdout.count("training the dense network") == 1
    assert swept.done.stdout.count("measuring scores") == 1


def test_each_run_has_its_own_run_folder(swept):
    done = call_here("front", swept.folder / f"{NAME}0.4", "--json")
    assert done.returncode == 0, done.stderr
    front = json.loads(done.stdout)
    run = swept.runs["0.4"]
    assert run["at_target"]["accuracy"] == front["at_target"]["accuracy"]
    assert run["front_size"] == len(front["points"])
    assert run["controls"].keys() == {"uniform", "random"}
    assert run["seconds"] > 0
    for target in ("0.5", "0.4"):
        assert list(swept.folder.glob(f"{NAME}{target}/logs/worker-*.log"))


def test_the_table_and_the_page_show_every_run(swept):
    page = (swept.folder / "report.html").read_text()
    for target in ("0.5", "0.4"):
        run = swept.runs[target]
        for shown in (run["at_target"]["accuracy"], run["dense"]["accuracy"], run["hypervolume"]):
            assert f"{shown:.4f}" in swept.done.stdout
            assert f"{shown:.4f}" in page
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links == [f"{NAME}0.5/report.html", f"{NAME}0.4/report.html"]
    assert all((swept.folder / link).is_file() for link in links)
    assert page.count("<svg") == 1
    assert page.count("dense of ") == 2
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_a_finished_sweep_runs_nothing_again(swept):
    file = swept.file.with_name("reachable.toml")
    file.write_text("targets = [0.5, 0.4]" + SETTINGS)
    journal = swept.folder / f"{NAME}0.5" / "journal.log"
    before, begin = journal.stat().st_mtime_ns, time.monotonic()
    done = call_here("sweep", file, "--out", swept.folder)
    assert done.returncode == 0, done.stderr
    assert "trial" not in done.stdout
    assert journal.stat().st_mtime_ns == before
    assert time.monotonic() - begin < 30  # no Ray, no training


@pytest.mark.parametrize(
    ("target", "setting", "other", "told"),
    [
        (0.5, "epochs = 0.2", "epochs = 0.3", "epochs = 0.3 instead of 0.2"),
        (0.5, "[search]", "[search]\nround_to = 2", "round_to = 2 instead of 1"),
    ],
    ids=["finished", "finished, of another option"],
)
def test_a_started_run_keeps_its_settings(swept, target, setting, other, told):
    file = swept.file.with_name("changed.toml")
    file.write_text(f"targets = [{target}]" + SETTINGS.replace(setting, other))
    for more in ((), ("--dry-run",)):
        done = call_here("sweep", file, "--out", swept.folder, *more)
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_finished_run_continues_with_more_trials_and_refuses_fewer(swept):
    """The last test of this sweep, because it changes one of its runs."""
    file = swept.file.with_name("more.toml")
    file.write_text("targets = [0.5, 0.4]" + SETTINGS)
    text = file.read_text()
    file.write_text(text + "[[override]]\nmatch = {target_flops = 0.5}\ntrials = 2\n")
    told = call_here("sweep", file, "--out", swept.folder, "--dry-run").stdout
    assert "2 trials: waiting" in told
    assert "1 trials: finished" in told
    other = (swept.folder / f"{NAME}0.4" / "journal.log").read_bytes()
    before = swept.runs["0.5"]["seconds"]
    done = call("sweep", file, "--out", swept.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert swept.runs["0.5"]["seconds"] > before
    assert {run["state"] for run in swept.runs.values()} == {"finished"}
    assert (swept.folder / f"{NAME}0.5" / "trials" / "1").is_dir()
    assert (swept.folder / f"{NAME}0.4" / "journal.log").read_bytes() == other
    file.write_text(text)
    fewer = call_here("sweep", file, "--out", swept.folder)
    assert fewer.returncode == 2
    assert "trials = 1 instead of 2" in fewer.stderr


def stopped_in_the_second_run(file, folder, number):
    """The sweep, given the signal while its second run has trials running; what it printed."""
    process = subprocess.Popen(
        command("sweep", file, "--out", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    journal = folder / f"{NAME}0.4" / "journal.log"
    while process.poll() is None and not (journal.exists() and '"job"' in journal.read_text()):
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=120)
    return process.returncode, printed, family


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_stopped_sweep_is_resumed(tmp_path, number, code):
    file, folder = tmp_path / "s.toml", tmp_path / "out"
    file.write_text("targets = [0.5, 0.4]" + SETTINGS.replace("trials = 1", "trials = 6"))
    returncode, printed, family = stopped_in_the_second_run(file, folder, number)
    assert returncode == code, printed
    if code > 0:
        assert f"to go on: paretoprune sweep {file} --out {folder}" in printed
        assert "interrupted" in printed
        assert "Traceback" not in printed
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    first = (folder / f"{NAME}0.5" / "journal.log").read_bytes()
    done = call("sweep", file, "--out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / f"{NAME}0.5" / "journal.log").read_bytes() == first
    runs = Swept(file, folder, done).runs
    assert [run["state"] for run in runs.values()] == ["finished", "finished"]
    assert "training the dense network" not in done.stdout
