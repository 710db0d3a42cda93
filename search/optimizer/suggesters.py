"""Objects with the `suggest_*` methods of an Optuna trial: fixed, random and mutating."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from ...spaces.policy.policy import Policy

CHANGE_PROBABILITY = 0.2  # of each parameter
MUTATION_STD = 0.15  # as a fraction of a number's range

T = TypeVar("T")


class Asked(Protocol):
    """The interface that a policy space samples from; an Optuna trial has it.

    Example:
        @pp.policy_space
        def two_scores(trial: pp.Asked) -> pp.Policy:
            return pp.Policy(trial.suggest_categorical("score", ("taylor", "l2")))
    """

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of the choices.

        Args:
            name: Name of the parameter.
            choices: The possible values.

        Returns:
            One of the choices.
        """

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Suggest a number.

        Args:
            name: Name of the parameter.
            low: The smallest value.
            high: The largest value.
            step: Spacing of the values, counted from low; None for any value.
            log: Whether to sample uniformly in the logarithm.

        Returns:
            A number in [low, high].
        """

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Suggest an integer.

        Args:
            name: Name of the parameter.
            low: The smallest value.
            high: The largest value.
            step: Spacing of the values, counted from low.
            log: Whether to sample uniformly in the logarithm.

        Returns:
            An integer in [low, high].
        """


class OutsideSpaceError(Exception):
    """A policy space does not contain the policy."""


class _Recorder:
    """Records suggested values by name in `params`."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def _record(self, name: str, value: T) -> T:
        self.params[name] = value
        return value


class FixedSuggester(_Recorder):
    """Suggests the values of a given policy."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = policy

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the policy's value, which must be one of the choices."""
        return self._checked(name, lambda value: value in choices)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return the policy's value, which must be in the range."""
        return float(self._checked(name, lambda value: is_in_range(value, low, high, step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Return the policy's value, which must be in the range."""
        return int(self._checked(name, lambda value: is_in_range(value, low, high, step)))

    def _checked(self, name: str, is_allowed: Callable[[Any], bool]) -> Any:
        value = self._value(name)
        if not is_allowed(value):
            raise OutsideSpaceError
        return self._record(name, value)

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
            index = 2 * int(number) + (part == "shift")
            return policy.stages[index] if index < len(policy.stages) else math.nan
        if name == "order" or name.endswith(" score"):
            return policy.score
        if not hasattr(policy, name):  # a parameter of a user's own space
            raise OutsideSpaceError
        return getattr(policy, name)


class RandomSuggester(_Recorder):
    """Suggests random values."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self._rng = rng

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Draw one of the choices uniformly."""
        return self._record(name, choices[int(self._rng.integers(len(choices)))])

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Draw uniformly, or uniformly in the logarithm."""
        if log:
            value = np.exp(self._rng.uniform(math.log(low), math.log(high)))
        else:
            value = self._rng.uniform(
                low, high if step is None else largest_on_grid(low, high, step)
            )
        return float(self._record(name, snap_to_grid(float(value), low, high, step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Draw uniformly, or uniformly in the logarithm."""
        if log:
            value = np.exp(self._rng.uniform(math.log(low), math.log(high)))
            return int(self._record(name, round(snap_to_grid(float(value), low, high, step))))
        count = (high - low) // step + 1
        return int(self._record(name, low + step * int(self._rng.integers(count))))


class MutatingSuggester(RandomSuggester):
    """Suggests given parameters, each changed with probability CHANGE_PROBABILITY."""

    def __init__(self, params: Mapping[str, Any], rng: np.random.Generator) -> None:
        super().__init__(rng)
        self._known = params

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the given choice, or draw one."""
        if self._keeps(name) and self._known[name] in choices:
            return self._record(name, self._known[name])
        return super().suggest_categorical(name, choices)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return the given number, or one near it; draw one if none is given."""
        if name not in self._known:
            return super().suggest_float(name, low, high, step=step, log=log)
        known = min(max(float(self._known[name]), low), high)
        if not self._keeps(name):
            move = MUTATION_STD * self._rng.standard_normal()
            known = known * (high / low) ** move if log else known + (high - low) * move
        return float(self._record(name, snap_to_grid(min(max(known, low), high), low, high, step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Return the given number, or draw one."""
        if self._keeps(name) and is_in_range(self._known[name], low, high, step):
            return int(self._record(name, int(self._known[name])))
        return super().suggest_int(name, low, high, step=step, log=log)

    def _keeps(self, name: str) -> bool:
        return name in self._known and self._rng.random() >= CHANGE_PROBABILITY


def largest_on_grid(low: float, high: float, step: float) -> float:
    """Return the largest number in [low, high] that is a whole number of steps above low."""
    return low + step * math.floor((high - low) / step + 1e-9)


def snap_to_grid(value: float, low: float, high: float, step: float | None) -> float:
    """Round to a whole number of steps above low; return the value itself without a step."""
    if step is None:
        return value
    return min(low + step * round((value - low) / step), largest_on_grid(low, high, step))


def is_in_range(value: Any, low: float, high: float, step: float | None) -> bool:
    """Whether the value is a number in [low, high] and a whole number of steps above low."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return False
    return math.isclose(snap_to_grid(value, low, high, step), value, rel_tol=1e-9, abs_tol=1e-12)
