"""Run every test, slow ones too, and write what came of them to tests/record.json.

    python tests/record.py

The record names the commit that was tested; commit it with the next change.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).parent.parent


def git(*words):
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


def main():
    commit, changed = git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "pytest", "--junitxml", str(report), "--timeout", "3600", *sys.argv[1:]]
        code = subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode
        suite = ElementTree.parse(report).getroot().find("testsuite")
    cases = {
        f"{case.get('classname')}::{case.get('name')}": outcome(case)
        for case in suite.iter("testcase")
    }
    counts = {name: list(cases.values()).count(name) for name in ("passed", "failed", "skipped")}
    record = {
        "schema": 1, "commit": commit, "tree_changed": changed,
        "arguments": sys.argv[1:], **counts,
        "seconds": round(time.time() - start), "python": platform.python_version(),
        "not_passed": {name: state for name, state in cases.items() if state != "passed"},
    }  # fmt: skip
    (ROOT / "tests/record.json").write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(code)


def outcome(case):
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in kinds else "passed"


if __name__ == "__main__":
    main()
