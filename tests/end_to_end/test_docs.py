"""The documentation builds without a warning, agrees with the code, and its code runs."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from functools import cache

import pytest
from command_line import ROOT
from doc_blocks import DOCS, blocks_of, pages, run_blocks

import paretoprune
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

RUN = (  # the pages of one entry share a folder
    ("get-started/quickstart.md",),
    ("get-started/python.md",),
    (
        "guide/your-network.md",
        "guide/your-data.md",
        "guide/choosing.md",
        "guide/shipping.md",
        "guide/your-scores.md",
    ),
)
METHODS = DOCS / "how-it-works/methods.md"


def build(root, out):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", out]
    env = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, capture_output=True, text=True, cwd=root, env=env, timeout=300)


def copy_of_docs(folder):
    for name in ("docs", "benchmarks/results"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    return folder


@cache
def options_by_command():
    """The options of each command, as its page lists them."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    parts = re.split(r"^### `paretoprune ", hooks.command_reference(), flags=re.M)[1:]
    lines = {part.split("`")[0]: re.findall(r"^\* `(-[^`]+)`", part, flags=re.M) for part in parts}
    return {name: set(re.findall(r"--[a-z-]+", " ".join(of))) for name, of in lines.items()}


def test_the_site_builds_without_a_warning_and_needs_no_other_host(tmp_path):
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    cited = "cited/benchmarks/results/refit_resnet20.json"
    assert (tmp_path / "site" / cited).is_file()
    page = (tmp_path / "site/experiments/refit/index.html").read_text()
    assert f'href="../../{cited}"' in page
    for path in (tmp_path / "site").rglob("*.html"):
        assert not re.findall(r'<(?:script|link|img)[^>]+"(?:https?:)?//', path.read_text()), path
    reference = (tmp_path / "site/reference/python/index.html").read_text()
    for name in paretoprune.__all__:
        assert re.search(rf'<h2 id="[\w.]*\b{name}"', reference), name
    commands = (tmp_path / "site/reference/commands/index.html").read_text()
    for name in options_by_command():
        assert f'id="paretoprune-{name}"' in commands, name


@pytest.mark.parametrize(
    "link",
    ["(nowhere.md)", "(concepts/masks.md#nowhere)", "(../benchmarks/results/nowhere.json)"],
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, link):
    root = copy_of_docs(tmp_path)
    with open(root / "docs/index.md", "a") as page:
        page.write(f"\n[a link]{link}\n")
    done = build(root, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stdout + done.stderr


def test_every_code_block_is_run_or_says_why_not():
    run = {page for pages_of in RUN for page in pages_of}
    for path in pages():
        for block in blocks_of(path):
            assert block.act in ("run", "run with", "file", "not run"), block
            if block.act == "not run":
                assert len(block.mark) > len("not run: ") + 10, block
            else:
                assert block.page in run, f"{block.page} is not among the pages that are run"


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


OF_OTHERS = {  # of ray and torchrun
    "--help",
    "--head",
    "--nproc-per-node",
    "--port",
    "--working-dir",
}


def test_options_named_in_prose_are_options_of_some_command():
    known, seen = set.union(*options_by_command().values()), 0
    for path in user_pages():
        words = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose(path)))
        assert words <= known | OF_OTHERS, path
        seen += len(words)
    assert seen > 50


def user_pages():
    """All pages but experiments and decisions, which name options of benchmarks and of others."""
    return [p for p in pages() if p.parent.name not in ("experiments", "decisions")]


def test_an_experiment_has_its_four_sections():
    for path in (DOCS / "experiments").glob("*.md"):
        found = re.findall(r"^## (.*)$", path.read_text(), flags=re.M)
        assert found == ["Question", "Command", "Table", "Answer"], path


def prose(path):
    """The text without marks and without commands of benchmarks."""
    return re.sub(r"<!--.*?-->|`python (-m )?benchmarks[^`]*`", "", path.read_text())


def test_the_methods_page_names_everything_that_a_policy_may_be():
    text = METHODS.read_text()
    scores = [name for name in all_scores() if name in known_at_home()]
    assert len(scores) > 10
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
    methods = (ROOT / "analysis/scores/methods").glob("*.py")
    return {path.stem.replace("_", "-") for path in methods}


def test_the_methods_page_gives_each_preset_its_parts():
    rows = {
        row.split("`")[1]: row
        for row in METHODS.read_text().splitlines()
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


@pytest.mark.parametrize("of", RUN, ids=lambda of: of[0])
def test_the_code_of_pages_runs_in_their_order(of, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run_blocks([block for page in of for block in blocks_of(DOCS / page)], tmp_path)
