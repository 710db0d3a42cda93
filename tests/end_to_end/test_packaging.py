"""The packaging tables match the disk; clones without links and wheels work."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("search", "analysis", "trainers", "spaces")


def tables():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return settings["packages"], settings["package-dir"]


def packages_on_disk():
    for folder in FOLDERS:
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            yield init.parent.relative_to(ROOT)


def clean_environment():
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def test_tables_name_every_package_on_disk_and_no_other():
    packages, package_dir = tables()
    expected = {"paretoprune": "paretoprune"}
    expected |= {f"paretoprune.{'.'.join(p.parts)}": p.as_posix() for p in packages_on_disk()}
    assert set(packages) == set(expected)
    assert package_dir == expected


def test_every_folder_with_python_files_is_a_package():
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file


def test_links_point_to_the_folders():
    for folder in FOLDERS:
        assert os.readlink(ROOT / "paretoprune" / folder) == f"../{folder}"


def copy_of_tree(to: Path) -> Path:
    names = [*FOLDERS, "paretoprune", "pyproject.toml", "README.md", "LICENSE", "search.py"]
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                to / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
            )
        else:
            shutil.copy(source, to / name)
    return to


def build_wheel(tree: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, tree]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_of_a_clone_without_links_imports_elsewhere(tmp_path):
    tree = copy_of_tree(tmp_path / "clone") if (tmp_path / "clone").mkdir() is None else None
    for folder in FOLDERS:
        (tree / "paretoprune" / folder).unlink()
    wheel = build_wheel(tree, tmp_path / "dist")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import paretoprune, paretoprune.search.cli.app, paretoprune.analysis.scores\n"
        "print(paretoprune.__file__, paretoprune.analysis.__file__, callable(paretoprune.search))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(site / "paretoprune/__init__.py"),
        str(site / "paretoprune/analysis/__init__.py"),
        "True",
    ]
    assert (site / "paretoprune/py.typed").exists()
    assets = {p.name for p in (ROOT / "analysis/report").iterdir() if p.suffix in (".js", ".css")}
    packed = {path.name for path in (site / "paretoprune/analysis/report").iterdir()}
    assert assets | {"page.html"} <= packed


def test_search_can_be_called_whichever_part_is_imported_first():
    for first in ("paretoprune.search.cli.app", "paretoprune"):
        code = f"import {first}, paretoprune as pp; assert callable(pp.search), pp.search"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_rayignore_names_is_not_sent_along_with_a_job(tmp_path):
    from ray._private.runtime_env.packaging import create_package

    project, sent = tmp_path / "project", tmp_path / "sent.zip"
    shutil.copytree(ROOT / "trainers", project / "trainers", ignore=shutil.ignore_patterns("__*"))
    shutil.copy(ROOT / ".rayignore", project)
    left = ("data", "runs", ".git", ".venv", "build", ".mypy_cache")
    for name in left:
        (project / name).mkdir()
        (project / name / "file").write_text("large")
    create_package(str(project), sent, include_gitignore=True)
    names = zipfile.ZipFile(sent).namelist()
    assert not [name for name in names if name.split("/")[0] in left]
    assert "trainers/data/sources/load.py" in names
    assert "trainers/data/sources/digits.py" in names
