"""`paretoprune watch`: the report as a live page, served from this process; it only reads.

Ours instead of optuna-dashboard: it shows what the report shows (widths, evidence, controls, what
mattered), and keeps the reader's place. `optuna-dashboard RUN/journal.log` works as well.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ...analysis.report import Report, render_page
from ...analysis.report.page_data import report_values
from ...spaces.errors import UserError
from ..storage.run_folder import RunFolder, open_run
from .report_builder import build_report

HTML, JSON, TEXT = "text/html", "application/json", "text/plain"


class CachedReport:
    """A run's report, gathered anew only when its files have changed."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._state: object = None
        self._report: Report | None = None

    def report(self) -> Report:
        """The report as of now."""
        with self._lock:
            state = self.file_state()
            if self._report is None or state != self._state:
                before = self._report.insights if self._report else None
                self._report, self._state = build_report(self._path, before), state
            return self._report

    def file_state(self) -> object:
        """Equal as long as nothing that is shown has changed."""
        run = RunFolder(self._path)
        files = [run.config, run.journal, run.front, run.space, run.measurements]
        stats = [path.stat() if path.exists() else None for path in files]
        return [stat and (stat.st_mtime_ns, stat.st_size) for stat in stats]


class ReportServer(ThreadingHTTPServer):
    """Serves one run."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], watched: CachedReport) -> None:
        super().__init__(address, ReportHandler)
        self.cached_report = watched


class ReportHandler(BaseHTTPRequestHandler):
    """The page, and its values for a page that is already open."""

    server: ReportServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer / and /values.json; a run that cannot be read just now is said, not fatal."""
        if not self.is_host_allowed():
            return self.respond(403, TEXT, "this page answers to localhost only")
        try:
            if self.path == "/":
                return self.respond(
                    200, HTML, render_page(self.server.cached_report.report(), live=True)
                )
            if self.path == "/values.json":
                values = report_values(self.server.cached_report.report())
                return self.respond(200, JSON, json.dumps(values))
        except (UserError, OSError, ValueError) as error:
            return self.respond(503, TEXT, str(error))
        return self.respond(404, TEXT, "nothing is here")

    def is_host_allowed(self) -> bool:
        """On loopback, only pages that name this machine may read: no site that points here."""
        name = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
        here = str(self.server.server_address[0])
        return not is_loopback(here) or name == "localhost" or is_loopback(name)

    def respond(self, status: int, kind: str, text: str) -> None:
        """Send a text, or 304 where the reader has it already."""
        content = text.encode()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        if status == 200 and self.headers.get("If-None-Match") == tag:
            status, content = 304, b""
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line."""


def watch_command(path: Path, host: str, port: int) -> None:
    """Serve until Ctrl-C."""
    open_run(path)
    with open_server(path, host, port) as server:
        where = f"[{host}]" if ":" in host else host
        if not is_loopback(host):
            print(f"anybody who reaches {host} can read this run", file=sys.stderr)
        for each in (signal.SIGINT, signal.SIGTERM):  # shells let background jobs ignore Ctrl-C
            signal.signal(each, signal.default_int_handler)
        try:
            address = f"http://{where}:{server.server_port}/"
            print(f"watching {path} at {address} (Ctrl-C ends)", flush=True)
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            print()


def open_server(path: Path, host: str, port: int) -> ReportServer:
    """A server that holds its port; one line if it is taken."""
    try:
        return ReportServer((host, port), CachedReport(path))
    except socket.gaierror as error:
        raise UserError(
            f"--host must be an address of this machine, got {host} ({error.strerror}); "
            "write 127.0.0.1"
        ) from None
    except OSError as error:
        raise UserError(
            f"--host and --port must be free, got {host}:{port} ({error.strerror}); "
            "name another port, or 0 for any"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
