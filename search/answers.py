"""Who answers when a policy is made up of choices: a policy that is told, chance, or both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from ..spaces.policy import Policy

CHANGED = 0.2  # the chance of each choice to be another
MOVED = 0.15  # of a number's range, the standard deviation of a change

T = TypeVar("T")


class Asked(Protocol):
    """Who answers what a policy is made of; an Optuna trial is one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number in [low, high]."""


class Outside(Exception):
    """The answers of a policy that a space does not contain."""


class Told:
    """Answers with a policy's own values, and keeps them by the names asked for."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.answers: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The policy's own choice, if it is one of these."""
        return self._note(name, self._value(name), lambda value: value in choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The policy's own number, if it lies within."""
        value = self._value(name)
        return float(self._note(name, value, lambda v: low <= v <= high))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The policy's own number, if it lies within."""
        return int(self._note(name, self._value(name), lambda v: low <= v <= high))

    def _note(self, name: str, value: T, holds: Callable[[T], bool]) -> T:
        if not holds(value):
            raise Outside
        self.answers[name] = value
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
            raise Outside
        return getattr(policy, name)


class Drawn:
    """Answers at random; the sampler of thousands of policies that are screened."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Each alike."""
        return choices[int(self._rng.integers(len(choices)))]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Uniform, or uniform in the logarithm."""
        if log:
            return float(np.exp(self._rng.uniform(math.log(low), math.log(high))))
        return float(self._rng.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Each alike."""
        return int(self._rng.integers(low, high + 1))


class Varied:
    """Answers with known choices, save for those that chance changes; keeps its answers."""

    def __init__(self, known: Mapping[str, Any], rng: np.random.Generator) -> None:
        self._known, self._rng, self._drawn = known, rng, Drawn(rng)
        self.answers: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The known choice, or any."""
        if self._stays(name) and self._known[name] in choices:
            return self._note(name, self._known[name])
        return self._note(name, self._drawn.suggest_categorical(name, choices))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The known number, or one near it."""
        if name not in self._known:
            return float(self._note(name, self._drawn.suggest_float(name, low, high, log=log)))
        known = min(max(float(self._known[name]), low), high)
        if not self._stays(name):
            step = MOVED * self._rng.standard_normal()
            known = known * (high / low) ** step if log else known + (high - low) * step
        return float(self._note(name, min(max(known, low), high)))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The known number, or any."""
        if self._stays(name) and low <= self._known[name] <= high:
            return int(self._note(name, int(self._known[name])))
        return int(self._note(name, self._drawn.suggest_int(name, low, high)))

    def _note(self, name: str, value: Any) -> Any:
        self.answers[name] = value
        return value

    def _stays(self, name: str) -> bool:
        return name in self._known and self._rng.random() >= CHANGED
