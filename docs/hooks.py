"""Hooks of the site: pages listed by folder, the command reference, and cited files.

A link such as `../benchmarks/results/refit_resnet20.json` works in the repository. On the site the
cited file is copied below `cited/`. A cited file that does not exist fails the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

LINK = re.compile(r"(?<=\]\()(\.\.?/[^)#\s]+)(?=[)#])")
EXAMPLE = re.compile("\b\n((?:.+\n)+)")  # help text marks what keeps its lines with a backspace
COMMANDS = "<!-- commands -->"
LISTED = {"Results": "experiments", "How it works": "decisions"}  # section: folder of its pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append every page of a listed folder to its section, so that a new page is one new file."""
    for section in config.nav or []:
        for title, folder in LISTED.items():
            if title in section:
                found = sorted((Path(config.docs_dir) / folder).glob("*.md"))
                section[title].append({folder.title(): [f"{folder}/{p.name}" for p in found]})
    return config


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the command reference, and point links that leave docs/ to copies in the site."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        found = posixpath.normpath(posixpath.join("docs", posixpath.dirname(here), match[1]))
        if found.startswith("docs/"):
            return match[1]
        return cite(found, here, config, files)

    markdown = LINK.sub(moved, markdown)
    return markdown.replace(COMMANDS, command_reference()) if COMMANDS in markdown else markdown


def command_reference() -> str:
    """Every command with its arguments and options, as Typer documents them."""
    from paretoprune.search.cli.app import app

    command = typer.main.get_command(app)
    context = typer.Context(command)
    text = get_docs_for_click(obj=command, ctx=context, name="paretoprune", indent=1)
    return EXAMPLE.sub(r"```text\n\1```\n", text)


def cite(path: str, page: str, config: MkDocsConfig, files: Files) -> str:
    """Add a file of the repository to the site and return the link from `page` to it."""
    source = Path(config.docs_dir).parent / path
    if not source.is_file():
        raise PluginError(f"{page} cites {path}, which does not exist")
    copy = f"cited/{path}"
    if files.get_file_from_path(copy) is None:
        files.append(File.generated(config, copy, abs_src_path=str(source)))
    return posixpath.relpath(copy, posixpath.dirname(page) or ".")
