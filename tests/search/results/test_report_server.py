"""`paretoprune watch`: a live page of a run that is still being written."""

import os
import re
import signal
import subprocess
import urllib.error
import urllib.request

import pytest
from browser import browser
from command_line import ROOT, call, command
from run_folders import write_run


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", trials=9)[0]


@pytest.fixture(scope="module")
def served(writer):
    """The address of a served run; Ctrl-C must end the server well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = command("watch", writer.folder, "--port", "0")
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    yield re.search(r"http://127\.0\.0\.1:(\d+)/", line)[0]
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 0
    assert complaint == ""


def get(address, **headers):
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_values_that_have_not_changed_are_not_sent_again(served):
    status, headers, body = get(f"{served}values.json")
    assert status == 200
    assert body
    again = get(f"{served}values.json", **{"If-None-Match": headers["ETag"]})
    assert again[0] == 304
    assert again[2] == b""


def test_only_pages_that_name_this_machine_may_read(served):
    assert get(served, Host="evil.example")[0] == 403
    assert get(served, Host="localhost:1")[0] == 200
    assert get(f"{served}../../etc/passwd")[0] == 404


def test_a_new_trial_appears_and_the_readers_choice_stays(served, writer, tmp_path):
    with browser(tmp_path) as tab:
        tab.open(served)
        tab.wait("values.points.length > 0")
        first = tab.ask("values.points[1].id")
        tab.ask(f"select({first!r}); byId('filter').value = 'trial';"
                "byId('filter').dispatchEvent(new Event('input'))")  # fmt: skip
        before = tab.ask("values.points.length")
        added = writer.add()
        tab.wait(f"values.points.length === {before + 1}")
        assert tab.ask("state.selected") == first
        assert tab.ask("byId('filter').value") == "trial"
        assert tab.ask("document.querySelector('tr[aria-selected=true]').dataset.id") == first
        assert f"trial {added.trial}" in tab.ask("byId('table').textContent")
        assert tab.complaints == []
        assert all(url.startswith((served, "data:")) for url in tab.requests)


def test_a_run_that_cannot_be_read_just_now_is_said_and_not_fatal(served, writer):
    journal = writer.folder / "config.json"
    content = journal.read_bytes()
    journal.write_bytes(b"{torn")
    status, _, body = get(f"{served}values.json")
    journal.write_bytes(content)
    assert status == 503
    assert b"config.json must be a JSON file" in body
    assert get(f"{served}values.json")[0] == 200


def test_a_busy_port_is_one_line(served, writer):
    port = served.rsplit(":", 1)[1].strip("/")
    done = call("watch", writer.folder, "--port", port)
    assert done.returncode == 2
    assert port in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    done = call("watch", tmp_path)
    assert done.returncode == 2
    assert "RUN must be the folder of a search" in done.stderr


def test_another_host_than_loopback_is_warned_of(writer):
    process = subprocess.Popen(
        command("watch", writer.folder, "--port", "0", "--host", "0.0.0.0"), cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "anybody who reaches 0.0.0.0 can read this run" in complaint
