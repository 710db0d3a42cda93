"""The documentation builds without a warning, agrees with the code, and its code runs."""

import importlib.util
import re
import shutil
import subprocess
import sys

import pytest
from command_line import ROOT
from doc_blocks import DOCS, blocks_of, pages, run_block

from paretoprune.analysis.mask_ensembles import ENSEMBLE_PRESETS as ENSEMBLES
from paretoprune.analysis.scores.registry import all_scores
from paretoprune.spaces.policy.policy import (
    ALLOCATIONS,
    COMBINATIONS,
    CONTROL_POLICIES,
    COST_REFERENCES,
    CURVE_RULES,
    GATE_VARIANTS,
    NORMALISATIONS,
    POLICY_PRESETS,
    PROBE_MODES,
    SCHEDULE_NAMES,
)

RUN = ("quickstart.md", "tutorial.md")


def build(root, out):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out]
    return subprocess.run(words, capture_output=True, text=True, cwd=root, timeout=120)


def copy_of_docs(folder):
    for name in ("docs", "benchmarks/results"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    return folder


def reference():
    path = DOCS / "building/reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def options_by_command():
    """The options of each command, from the page that is made of the code."""
    parts = re.split(r"^## paretoprune ", reference()["commands.md"], flags=re.M)[1:]
    return {part.split()[0]: set(re.findall(r"`(--[a-z-]+)`", part)) for part in parts}


def test_the_site_builds_without_a_warning_and_needs_no_other_host(tmp_path):
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert (tmp_path / "site/cited/benchmarks/results/price.json").is_file()
    page = (tmp_path / "site/results/index.html").read_text()
    assert 'href="../cited/benchmarks/results/price.json"' in page
    for path in (tmp_path / "site").rglob("*.html"):
        assert not re.findall(r'<(?:script|link|img)[^>]+"(?:https?:)?//', path.read_text()), path


@pytest.mark.parametrize(
    "link", ["(nowhere.md)", "(methods.md#nowhere)", "(../benchmarks/results/nowhere.json)"]
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, link):
    root = copy_of_docs(tmp_path)
    with open(root / "docs/index.md", "a") as page:
        page.write(f"\n[a link]{link}\n")
    done = build(root, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["commands.md", "python.md"])
def test_the_reference_is_what_the_code_says(name):
    kept = (DOCS / "reference" / name).read_text()
    assert kept == reference()[name], "run make docs and commit docs/reference"


def test_every_code_block_is_run_or_says_why_not():
    for path in pages():
        for block in blocks_of(path):
            assert block.act in ("run", "run with", "file", "not run"), block
            if block.act == "not run":
                assert len(block.mark) > len("not run: ") + 10, block
            else:
                assert block.page in RUN, f"{block.page} is not among the pages that are run"


def test_the_commands_that_pages_show_exist_with_their_options():
    known, seen = options_by_command(), 0
    for path in pages():
        text = path.read_text().replace("\\\n", " ")
        for line in re.findall(r"paretoprune ([a-z]+\b[^\n`]*)", text):
            command, *words = line.split()
            if command not in known:
                assert path.parent == DOCS / "decisions" or "--" not in line, (path, line)
                continue
            options = {re.sub(r"[=,;.)].*", "", word) for word in words if word.startswith("--")}
            assert options <= known[command] | {"--help"}, (path, line)
            seen += 1
    assert seen > 20


PROSE = "index quickstart tutorial methods sweeps cluster troubleshooting"
OF_OTHERS = {  # of ray and torchrun
    "--help",
    "--head",
    "--nproc-per-node",
    "--port",
    "--working-dir",
}


def test_options_named_in_prose_are_options_of_some_command():
    known = set.union(*options_by_command().values())
    for name in PROSE.split():
        words = re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose(DOCS / f"{name}.md"))
        assert set(words) <= known | OF_OTHERS, name


def prose(path):
    return re.sub(r"<!--.*?-->", "", path.read_text())


def test_the_methods_page_names_everything_that_a_policy_may_be():
    text = (DOCS / "methods.md").read_text()
    scores = [name for name in all_scores() if name in known_at_home()]
    for name in (
        *POLICY_PRESETS,
        *CONTROL_POLICIES,
        *scores,
        *ENSEMBLES,
        *ALLOCATIONS,
        *SCHEDULE_NAMES,
    ):
        assert f"`{name}`" in text, name
    for name in (
        *COMBINATIONS,
        *NORMALISATIONS,
        *CURVE_RULES,
        *PROBE_MODES,
        *COST_REFERENCES,
        *GATE_VARIANTS,
    ):
        assert f"`{name}`" in text, name


def known_at_home():
    """Names of scores of ours: other tests of this process may have registered some."""
    return {
        path.stem.replace("_", "-") for path in (ROOT / "analysis/scores/methods").glob("*.py")
    }


def test_the_methods_page_gives_each_preset_its_parts():
    rows = {
        row.split("`")[1]: row
        for row in (DOCS / "methods.md").read_text().splitlines()
        if row.startswith("| `") and row.split("`")[1] in POLICY_PRESETS
    }
    assert set(rows) == set(POLICY_PRESETS)
    for name, policy in POLICY_PRESETS.items():
        assert policy.score in rows[name]
        assert f"`{policy.schedule}`" in rows[name]
        if policy.schedule != "holistic":
            assert f"`{policy.allocation}`" in rows[name]


def test_pages_name_no_place_of_ours():
    for path in pages():
        text = path.read_text()
        assert not re.search(r"/(?:work|tmp|home|root)/|[Ii]ssue \d", text), path


@pytest.mark.parametrize("page", ["quickstart.md", "tutorial.md"])
def test_the_code_of_a_page_runs_in_its_order(page, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for block in blocks_of(DOCS / page):
        run_block(block, tmp_path)
