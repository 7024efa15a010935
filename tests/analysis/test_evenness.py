from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analysis.evenness import evenness_of_experts, evenness_of_groups

# Two tasks, two layers; the second layer has two of the three experts.
RATE = xr.DataArray(
    [[[0.5, 0.0, 0.5], [1.0, 0.0, np.nan]], [[0.5, 0.5, 0.0], [0.25, 0.0, np.nan]]],
    dims=("group", "layer", "expert"),
)


def test_how_evenly_tasks_use_an_expert_by_hand():
    found = evenness_of_experts(RATE)
    # Used alike; by one task alone, twice; then 0.8 and 0.2 of its use; never chosen; and none.
    of_a_fifth = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2)) / np.log(2)
    np.testing.assert_allclose(found, [[1, 0, 0], [of_a_fifth, np.nan, np.nan]], atol=1e-12)


def test_how_evenly_a_task_uses_experts_by_hand():
    # Two of three experts alike, and one of two alone: log 2 / log 3 and 0, whose mean is told.
    assert evenness_of_groups(RATE).to_numpy() == pytest.approx([np.log(2) / np.log(3) / 2] * 2)


def test_one_task_alone_is_neither_even_nor_uneven():
    assert np.isnan(evenness_of_experts(RATE.isel(group=[0]))).all()
