"""Plugins: Python files and entry points whose decorated functions extend the registries.

A file's content travels to the workers, so that their nodes need not have it.
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

from ...analysis.scores.registry import BatchScore, Score, all_scores, forget, put
from ...spaces.errors import UserError
from ...spaces.policy.policy import Policy
from .search_space import forget_space, own_spaces, policy_space
from .suggesters import Asked

ENTRY_POINTS = "paretoprune.plugins"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A file that a user named, as it was read: another content is another plugin."""

    path: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The content's hash."""
        return hashlib.sha256(self.content).hexdigest()


def read_plugin(path: Path) -> Plugin:
    """The record of a plugin file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"--plugin must be a Python file, got {path} ({error.strerror}); check the path"
        ) from None
    return Plugin(str(path.resolve()), content)


@dataclass(frozen=True, slots=True)
class Additions:
    """What a plugin adds to the registries."""

    scores: Mapping[str, Score | BatchScore]
    spaces: tuple[Callable[[Asked], Policy], ...]

    @classmethod
    def now(cls) -> Additions:
        """All that is registered."""
        return cls(all_scores(), own_spaces())

    def since(self, before: Additions) -> Additions:
        """What of this was not there before."""
        scores = {n: method for n, method in self.scores.items() if n not in before.scores}
        return Additions(scores, self.spaces[len(before.spaces) :])

    def put(self) -> None:
        """Register it."""
        for name, method in self.scores.items():
            put(name, method)
        for function in self.spaces:
            policy_space(function)

    def forget(self) -> None:
        """Take it out of the registries."""
        for name in self.scores:
            forget(name)
        for function in self.spaces:
            forget_space(function)


_ADDED: dict[str, Additions] = {}  # by a plugin's hash: its module is run once a process
_LOADED: list[str] = []  # hashes of those that hold now


@contextmanager
def plugged(plugins: Sequence[Plugin]) -> Iterator[None]:
    """Load plugins for one search: what they add holds until its end."""
    before = tuple(_LOADED)
    try:
        load_plugins(plugins)
        yield
    finally:
        for key in reversed(_LOADED[len(before) :]):
            _ADDED[key].forget()
        _LOADED[len(before) :] = []


def load_plugins(plugins: Sequence[Plugin]) -> None:
    """Run the named files and the installed entry points, in the driver and in every worker."""
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()
    for plugin in plugins:
        load_plugin(plugin)


def load_plugin(plugin: Plugin) -> None:
    """Let a plugin add what it has, unless it has done so."""
    key = plugin.sha256
    if key in _LOADED:
        return
    if key in _ADDED:
        _ADDED[key].put()
    else:
        before = Additions.now()
        try:
            run_file(plugin)
        except UserError:
            Additions.now().since(before).forget()
            raise
        added = Additions.now().since(before)
        if not added.scores and not added.spaces:
            raise UserError(
                f"--plugin must add a score or a policy space, got {plugin.path} that adds none; "
                "decorate a function with @pp.score(NAME), @pp.batch_score or @pp.policy_space"
            )
        _ADDED[key] = added
    _LOADED.append(key)


def run_file(plugin: Plugin) -> None:
    """Import what was read of a plugin's file, under a name of its own."""
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
            f"--plugin must import, got {type(error).__name__}: {error} in {plugin.path}; mend it"
        ) from error
