"""Whether the search was worth its while: its answer beside the controls of the same size."""

from __future__ import annotations

from ...spaces.records.pareto_front import Front


def compare_with_controls(front: Front) -> str:
    """What the networks to pick are worth beside each control; empty where nothing is to compare.

    The answer was chosen by validation, so it is better only if test, where measured, agrees.
    """
    if front.picked is None or not front.gains_over_controls:
        return ""
    order = sorted(front.gains_over_controls, reverse=True)  # uniform first
    found = "; ".join(
        compare_with_control(name, *front.gains_over_controls[name]) for name in order
    )
    return f"trial {front.picked.trial}: {found}"


def compare_with_control(name: str, accuracy: float, test: float | None) -> str:
    """One control, in percentage points."""
    gains = {"validation": round(100 * accuracy, 1)}
    if test is not None:
        gains["test"] = round(100 * test, 1)
    if all(gain > 0 for gain in gains.values()):
        first, *more = (f"{gain:.1f}" for gain in gains.values())
        on_test = "".join(f", {gain} on test" for gain in more)
        return f"{first} points above the {name} cut on validation{on_test}"
    signed = [f"{gain + 0.0:+.1f}" for gain in gains.values()]
    on_test = "".join(f", {gain} on test" for gain in signed[1:])
    return f"no better than the {name} cut at this size: {signed[0]} points on validation{on_test}"
