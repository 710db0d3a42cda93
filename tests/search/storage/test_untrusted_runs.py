"""Untrusted run folders: any damage ends with an error of one line, and soon."""

import json
import os
import shutil
import time

import pytest
from file_damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import write_run

from paretoprune.search.cli.app import main
from paretoprune.search.results.report_builder import build_report
from paretoprune.search.results.run_summary import read_run_front
from paretoprune.spaces.errors import UserError

READERS = ("front", "report", "pick")
FILES = ("config.json", "journal.log", "space.json", "front.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers") / "run"
    write_run(folder, trials=5, evidence=True)
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def check_readers(run, capsys):
    """Every command that reads a run ends soon, with a result or an error of one line."""
    for reader in READERS:
        start = time.monotonic()
        out = ["--out", str(run.parent / f"{reader}.out")] if reader != "front" else []
        with pytest.raises(SystemExit) as exit_:
            main([reader, str(run), *out])
        error = capsys.readouterr().err
        assert exit_.value.code in (0, 2), (reader, error)
        assert error.count("\n") == (exit_.value.code == 2), (reader, error)
        assert time.monotonic() - start < 30


def without_front(run, line):
    """An unfinished run with an inserted line in its journal."""
    (run / "front.json").unlink()
    insert(run, line)
    return run


def insert(run, line):
    lines = (run / "journal.log").read_bytes().splitlines(keepends=True)
    lines.insert(8, line + b"\n")
    (run / "journal.log").write_bytes(b"".join(lines))


LINES = (
    b"garbage", b"\xff\x00", b"[]", b"5", b"{}", b"null", b"[" * 200_000,
    b'{"op_code": 99, "worker_id": "x"}',
    b'{"op_code": 4, "worker_id": "x", "study_id": 0, "datetime_start": "never"}',
)  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
@pytest.mark.parametrize("ended", [True, False])
def test_a_malformed_line_is_an_error_of_one_line(line, ended, run, capsys):
    insert(run, line) if ended else without_front(run, line)
    check_readers(run, capsys)
    with pytest.raises(UserError, match=r"journal\.log must be"):
        build_report(run)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "terabyte", "nothing", "loop"])
def test_a_special_or_huge_file_neither_hangs_nor_fills_memory(name, kind, run, capsys):
    path = run / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.touch()
        os.truncate(path, 2**40 if kind == "terabyte" else 0)
    check_readers(run, capsys)


@pytest.mark.parametrize("kind", ["pipe", "folder", "terabyte", "bytes", "packed"])
def test_untrusted_measurements_neither_hang_nor_fill_memory(kind, run, capsys):
    import numpy as np

    for path in (run / "evidence").glob("*.npz"):
        tables = dict(np.load(path))
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "packed":
            np.savez_compressed(path, **tables, zeros=np.zeros(10**8, np.int8))
        else:
            path.write_bytes(b"PK\x03\x04" * 9)
            os.truncate(path, 2**40 if kind == "terabyte" else 36)
    check_readers(run, capsys)


CASES = [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]


@pytest.mark.parametrize("cases", CASES)
def test_any_damage_to_a_journal_is_an_error_of_one_line(cases, made, tmp_path):
    run = shutil.copytree(made, tmp_path / "run")
    (run / "front.json").unlink()
    records = [json.loads(line) for line in (made / "journal.log").read_text().splitlines()]
    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=cases, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(range(len(records))), st.data(), st.binary(max_size=20))
    def damage(number, data, noise):
        lines = [json.dumps(record).encode() for record in records]
        if data.draw(st.booleans()):
            lines[number] = json.dumps(data.draw(damaged(records[number]))).encode()
        else:
            place = data.draw(st.integers(0, len(lines[number])))
            lines[number] = lines[number][:place] + noise + lines[number][place + len(noise) :]
        (run / "journal.log").write_bytes(b"\n".join(lines) + b"\n")
        try:
            read_run_front(run)
            build_report(run)
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1

    damage()
    assert min(outcomes.values()) > 0, outcomes
