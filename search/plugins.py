"""Plugins: Python files and entry points whose decorated functions extend the registries."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from ..spaces.errors import UserError

ENTRY_POINTS = "paretoprune.plugins"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A file that a user named, and its content's hash: another content is another plugin."""

    path: str
    sha256: str


def read_plugin(path: Path) -> Plugin:
    """The record of a plugin file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"--plugin must be a Python file, got {path} ({error.strerror}); check the path"
        ) from None
    return Plugin(str(path.resolve()), hashlib.sha256(content).hexdigest())


def load_plugins(plugins: Sequence[Plugin]) -> None:
    """Run the named files and the installed entry points, in the driver and in every worker."""
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()
    for plugin in plugins:
        load_plugin(plugin)


def load_plugin(plugin: Plugin) -> None:
    """Import one plugin file under a name of its own, once a process."""
    name = f"paretoprune_plugin_{plugin.sha256[:16]}"
    if name in sys.modules:
        return
    found = read_plugin(Path(plugin.path))
    if found.sha256 != plugin.sha256:
        raise UserError(
            f"--plugin must not change during a run, got another content of {plugin.path}; "
            "put the old file back, or start a new search"
        )
    spec = importlib.util.spec_from_file_location(name, plugin.path)
    if spec is None or spec.loader is None:
        raise UserError(f"--plugin must be a Python file, got {plugin.path}; name it *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        sys.modules.pop(name)
        raise
    except Exception as error:
        sys.modules.pop(name)
        raise UserError(
            f"--plugin must import, got {type(error).__name__}: {error} in {plugin.path}; mend it"
        ) from error
