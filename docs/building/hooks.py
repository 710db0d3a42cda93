"""Hooks of the build of the site: the list of decisions, and files outside docs/ that pages cite.

A link such as `../benchmarks/results/price.json` works where the repository is read as files. In
the site the cited file is copied below `cited/`; one that does not exist fails the build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(\.\.?/[^)#\s]+)(?=[)#])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add every decision to the navigation, so that a new one is one new file."""
    found = sorted((Path(config.docs_dir) / "decisions").glob("*.md"))
    config.nav = [*(config.nav or []), {"Decisions": [f"decisions/{p.name}" for p in found]}]
    return config


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/ to copies in the site."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        found = posixpath.normpath(posixpath.join("docs", posixpath.dirname(here), match[1]))
        if found.startswith("docs/"):
            return match[1]
        return cite(found, here, config, files)

    return LINK.sub(moved, markdown)


def cite(path: str, page: str, config: MkDocsConfig, files: Files) -> str:
    """Add a file of the repository to the site; the link that leads there from `page`."""
    source = Path(config.docs_dir).parent / path
    if not source.is_file():
        raise PluginError(f"{page} cites {path}, which does not exist")
    copy = f"cited/{path}"
    if files.get_file_from_path(copy) is None:
        files.append(File.generated(config, copy, abs_src_path=str(source)))
    return posixpath.relpath(copy, posixpath.dirname(page) or ".")
