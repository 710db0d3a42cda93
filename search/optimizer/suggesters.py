"""Who answers when a policy is made up of choices: a policy that is told, chance, or both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from ...spaces.policy.policy import Policy

CHANGE_PROBABILITY = 0.2  # the chance of each choice to be another
MUTATION_STD = 0.15  # of a number's range, the standard deviation of a change

T = TypeVar("T")


class Asked(Protocol):
    """Who answers what a policy is made of; an Optuna trial is one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high], a whole number of steps above low."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number in [low, high], a whole number of steps above low."""


class OutsideSpaceError(Exception):
    """The answers of a policy that a space does not contain."""


class FixedSuggester:
    """Answers with a policy's own values, and keeps them by the names asked for."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The policy's own choice, if it is one of these."""
        return self._record(name, self._value(name), lambda value: value in choices)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The policy's own number, if it lies within."""
        value = self._value(name)
        return float(self._record(name, value, lambda v: is_in_range(v, low, high, step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """The policy's own number, if it lies within."""
        value = self._value(name)
        return int(self._record(name, value, lambda v: is_in_range(v, low, high, step)))

    def _record(self, name: str, value: T, holds: Callable[[T], bool]) -> T:
        if not holds(value):
            raise OutsideSpaceError
        self.params[name] = value
        return value

    def _value(self, name: str) -> Any:
        policy = self._policy
        if name == "priced":
            return policy.price_power > 0
        if name == "staged":
            return bool(policy.stages)
        if name == "free":
            return policy.threshold is not None
        if name.startswith("stage "):
            _, number, part = name.split()
            place = 2 * int(number) + (part == "shift")
            return policy.stages[place] if place < len(policy.stages) else math.nan
        if name == "order" or name.endswith(" score"):
            return policy.score
        if not hasattr(policy, name):  # a name of a user's own function
            raise OutsideSpaceError
        return getattr(policy, name)


class RandomSuggester:
    """Answers at random, and keeps its answers: the sampler of policies that are screened."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Each alike."""
        return self._record(name, choices[int(self._rng.integers(len(choices)))])

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Uniform, or uniform in the logarithm."""
        if log:
            found = np.exp(self._rng.uniform(math.log(low), math.log(high)))
        else:
            found = self._rng.uniform(
                low, high if step is None else largest_on_grid(low, high, step)
            )
        return float(self._record(name, snap_to_grid(float(found), low, high, step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Each alike, or uniform in the logarithm."""
        if log:
            found = np.exp(self._rng.uniform(math.log(low), math.log(high)))
            return int(self._record(name, round(snap_to_grid(float(found), low, high, step))))
        count = (high - low) // step + 1
        return int(self._record(name, low + step * int(self._rng.integers(count))))

    def _record(self, name: str, value: T) -> T:
        self.params[name] = value
        return value


class MutatingSuggester:
    """Answers with known choices, save for those that chance changes; keeps its answers."""

    def __init__(self, params: Mapping[str, Any], rng: np.random.Generator) -> None:
        self._known, self._rng, self._drawn = params, rng, RandomSuggester(rng)
        self.params = self._drawn.params

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The known choice, or any."""
        if self._keeps(name) and self._known[name] in choices:
            return self._record(name, self._known[name])
        return self._drawn.suggest_categorical(name, choices)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The known number, or one near it."""
        if name not in self._known:
            return self._drawn.suggest_float(name, low, high, step=step, log=log)
        known = min(max(float(self._known[name]), low), high)
        if not self._keeps(name):
            move = MUTATION_STD * self._rng.standard_normal()
            known = known * (high / low) ** move if log else known + (high - low) * move
        return float(self._record(name, snap_to_grid(min(max(known, low), high), low, high, step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """The known number, or any."""
        if self._keeps(name) and is_in_range(self._known[name], low, high, step):
            return int(self._record(name, int(self._known[name])))
        return self._drawn.suggest_int(name, low, high, step=step, log=log)

    def _record(self, name: str, value: T) -> T:
        self.params[name] = value
        return value

    def _keeps(self, name: str) -> bool:
        return name in self._known and self._rng.random() >= CHANGE_PROBABILITY


def largest_on_grid(low: float, high: float, step: float) -> float:
    """The largest number of [low, high] that is a whole number of steps above low."""
    return low + step * math.floor((high - low) / step + 1e-9)


def snap_to_grid(value: float, low: float, high: float, step: float | None) -> float:
    """The number nearest to this that is a whole number of steps above low; itself without."""
    if step is None:
        return value
    return min(low + step * round((value - low) / step), largest_on_grid(low, high, step))


def is_in_range(value: Any, low: float, high: float, step: float | None) -> bool:
    """Whether this is a number in [low, high], and a whole number of steps above low."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return False
    return math.isclose(snap_to_grid(value, low, high, step), value, rel_tol=1e-9, abs_tol=1e-12)
