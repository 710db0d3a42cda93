"""The hypervolume equals the count of dominated integer cells, and other properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paretoprune.spaces.records.hypervolume import (
    hypervolume,
    hypervolume_contributions,
    non_domination_ranks,
)

grids = st.integers(1, 4).flatmap(
    lambda d: arrays(
        np.int64, st.tuples(st.integers(1, 6), st.just(d)), elements=st.integers(-1, 5)
    )
)


@given(grids)
def test_the_volume_is_the_number_of_dominated_cells(points):
    cells = itertools.product(range(5), repeat=points.shape[1])
    counted = sum(any((point > cell).all() for point in points) for cell in cells)
    found = hypervolume(points.astype(float), np.zeros(points.shape[1]))
    assert found == pytest.approx(counted)


@given(grids)
def test_a_dominated_point_contributes_nothing(points):
    points = np.vstack([points, points[0] - 1]).astype(float)
    shares = hypervolume_contributions(points, np.full(points.shape[1], -2.0))
    assert shares[-1] == pytest.approx(0.0, abs=1e-9)
    assert (shares > -1e-9).all()


def test_points_below_the_reference_count_for_nothing():
    assert hypervolume(np.array([[0.5, -1.0]]), np.zeros(2)) == 0.0


@given(grids)
def test_a_rank_is_one_more_than_the_highest_rank_that_dominates(points):
    ranks = non_domination_ranks(points.astype(float))
    for row, rank in zip(points, ranks, strict=True):
        above = [
            r for p, r in zip(points, ranks, strict=True) if (p >= row).all() and (p > row).any()
        ]
        assert rank == max(above, default=-1) + 1
