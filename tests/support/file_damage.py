"""Damage to plain values, and the promise that readers end in a result or one line."""

import copy
import json
import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paretoprune.spaces.errors import UserError

HARD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from([10**400, -(10**30), 2**63, 1e308, math.nan, math.inf, "\x00", "../..", {}]),
)  # fmt: skip
VALUES = st.recursive(
    HARD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                      max_size=3), max_leaves=5,
)  # fmt: skip


def places(values, path=()):
    """Every place in plain values, as a path of keys."""
    yield path
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(
        values, list) else ()  # fmt: skip
    for key, inner in list(pairs):
        yield from places(inner, (*path, key))


@st.composite
def damaged(draw, values):
    """Values with up to three places replaced, removed or added to."""
    values = copy.deepcopy(values)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(values))))
        if not path:
            continue
        inner = values
        for key in path[:-1]:
            inner = inner[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "replace":
            inner[path[-1]] = draw(VALUES)
        elif action == "remove":
            del inner[path[-1]]
        elif isinstance(inner, dict):
            inner[draw(st.text(max_size=6))] = draw(VALUES)
    return values


def fuzz(values, read, cases):
    """No reader ends in anything but a result or one line."""
    whole = json.loads(json.dumps(values))
    read(whole)
    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=cases, deadline=5000, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(damaged(whole))
    def run(broken):
        try:
            read(json.loads(json.dumps(broken)))
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1

    run()
    assert min(outcomes.values()) > 0, outcomes
