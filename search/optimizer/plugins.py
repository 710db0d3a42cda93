"""Plugins: Python files and entry points that register scores and policy spaces.

The content of a plugin file is sent to the workers, so their nodes need no copy of the file.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from ...analysis.scores.registry import (
    BatchScore,
    ScoreFunction,
    all_scores,
    register_score,
    unregister_score,
)
from ...spaces.errors import UserError
from ...spaces.policy.policy import Policy
from .search_space import policy_space, registered_spaces, unregister_space
from .suggesters import Asked

ENTRY_POINT_GROUP = "paretoprune.plugins"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin file's path and content. Different content makes a different plugin."""

    path: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(self.content).hexdigest()


def read_plugin(path: Path) -> Plugin:
    """Read a plugin file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"--plugin must be a Python file, got {path} ({error.strerror}); check the path"
        ) from None
    return Plugin(str(path.resolve()), content)


@dataclass(frozen=True, slots=True)
class RegistryAdditions:
    """Scores and policy spaces that a plugin registers."""

    scores: Mapping[str, ScoreFunction | BatchScore]
    spaces: tuple[Callable[[Asked], Policy], ...]

    @classmethod
    def snapshot(cls) -> RegistryAdditions:
        """Return everything that is registered now."""
        return cls(all_scores(), registered_spaces())

    def added_since(self, before: RegistryAdditions) -> RegistryAdditions:
        """Return what this has and `before` lacks."""
        scores = {n: method for n, method in self.scores.items() if n not in before.scores}
        return RegistryAdditions(scores, self.spaces[len(before.spaces) :])

    def register(self) -> None:
        """Add these to the registries."""
        for name, method in self.scores.items():
            register_score(name, method)
        for function in self.spaces:
            policy_space(function)

    def unregister(self) -> None:
        """Remove these from the registries."""
        for name in self.scores:
            unregister_score(name)
        for function in self.spaces:
            unregister_space(function)


# What each plugin registers, by its hash: a plugin's module runs once in a process.
_ADDITIONS_BY_HASH: dict[str, RegistryAdditions] = {}
_ACTIVE_HASHES: list[str] = []  # of the plugins that are registered now


@contextmanager
def plugins_loaded(plugins: Sequence[Plugin]) -> Iterator[None]:
    """Register plugins until the block ends."""
    before = tuple(_ACTIVE_HASHES)
    try:
        load_plugins(plugins)
        yield
    finally:
        for key in reversed(_ACTIVE_HASHES[len(before) :]):
            _ADDITIONS_BY_HASH[key].unregister()
        _ACTIVE_HASHES[len(before) :] = []


def load_plugins(plugins: Sequence[Plugin]) -> None:
    """Load the entry points and these plugins, in the driver and in every worker."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        entry.load()
    for plugin in plugins:
        load_plugin(plugin)


def load_plugin(plugin: Plugin) -> None:
    """Register a plugin, unless it is registered already."""
    key = plugin.sha256
    if key in _ACTIVE_HASHES:
        return
    if key in _ADDITIONS_BY_HASH:
        _ADDITIONS_BY_HASH[key].register()
    else:
        before = RegistryAdditions.snapshot()
        try:
            run_plugin_file(plugin)
        except UserError:
            RegistryAdditions.snapshot().added_since(before).unregister()
            raise
        added = RegistryAdditions.snapshot().added_since(before)
        if not added.scores and not added.spaces:
            raise UserError(
                f"--plugin must add a score or a policy space, got {plugin.path} that adds none; "
                "decorate a function with @pp.score(NAME), @pp.batch_score or @pp.policy_space"
            )
        _ADDITIONS_BY_HASH[key] = added
    _ACTIVE_HASHES.append(key)


def run_plugin_file(plugin: Plugin) -> None:
    """Run the plugin's content as a module with a unique name."""
    name = f"paretoprune_plugin_{plugin.sha256[:16]}"
    module = ModuleType(name)
    module.__file__ = plugin.path
    sys.modules[name] = module
    try:
        exec(compile(plugin.content, plugin.path, "exec", dont_inherit=True), module.__dict__)
    except UserError:
        sys.modules.pop(name)
        raise
    except Exception as error:
        sys.modules.pop(name)
        raise UserError(
            f"--plugin must import, got {type(error).__name__}: {error} in {plugin.path}; "
            "correct it"
        ) from error
