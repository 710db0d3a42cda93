"""Run every test, slow ones too, and write the outcomes and durations to tests/record.json.

    python tests/record.py [OPTIONS OF PYTEST]

The record names the commit that was tested; commit it with the next change.
"""

import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
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
    cases = {test_id(case): outcome(case) for case in suite.iter("testcase")}
    counts = {name: list(cases.values()).count(name) for name in ("passed", "failed", "skipped")}
    durations = Counter()  # pytest writes a test twice whose teardown fails
    for case in suite.iter("testcase"):
        durations[test_id(case)] += float(case.get("time"))
    record = {
        "schema": 1, "commit": commit, "tree_changed": changed,
        "arguments": sys.argv[1:], **counts,
        "seconds": round(time.time() - start), "python": platform.python_version(),
        "not_passed": {name: state for name, state in cases.items() if state != "passed"},
        "durations": {name: round(seconds, 2) for name, seconds in durations.most_common()},
    }  # fmt: skip
    (ROOT / "tests/record.json").write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(code)


def test_id(case):
    """Class and name as JUnit has them, without the group `@FILE` that xdist adds to the name."""
    name = re.sub(r"@\w+$", "", case.get("name"))
    return f"{case.get('classname')}::{name}"


def outcome(case):
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in kinds else "passed"


if __name__ == "__main__":
    main()
