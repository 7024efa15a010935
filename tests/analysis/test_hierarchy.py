from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.cluster import hierarchy as scipy_hierarchy

from analysis.hierarchy import MOST_LEAVES, hierarchical_order
from routing.errors import SelectionError


def table(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims=("item", "feature"))


def test_points_on_a_line_come_out_in_their_order():
    places = np.array([3.0, 0.0, 4.1, 1.0, 9.0])
    order = hierarchical_order(table(places[:, None])).order
    sorted_places = places[order]
    assert sorted_places.tolist() in ([0, 1, 3, 4.1, 9], [9, 4.1, 3, 1, 0])


def test_axis_may_be_named_or_numbered_and_tables_may_be_frames():
    values = np.random.default_rng(0).normal(size=(5, 7))
    across = hierarchical_order(table(values), axis="feature").order
    assert across.tolist() == hierarchical_order(pd.DataFrame(values), axis=1).order.tolist()
    assert sorted(across.tolist()) == list(range(7))


def test_the_tree_belongs_to_the_order():
    found = hierarchical_order(table(np.random.default_rng(1).normal(size=(20, 4))), metric="cosine", method="average")
    assert found.exact
    assert scipy_hierarchy.leaves_list(found.linkage).tolist() == found.order.tolist()


def test_items_without_numbers_come_last_and_gaps_say_nothing():
    values = np.array([[0.0, 1.0], [np.nan, np.nan], [5.0, np.nan], [0.1, 1.0]])
    found = hierarchical_order(table(values))
    assert found.order[-1] == 1
    assert found.n_left_out == 1
    assert found.leaf.tolist() == [0, -1, 1, 2]
    assert found.linkage.shape == (2, 4)  # two joins of the three that have numbers
    assert abs(found.order.tolist().index(0) - found.order.tolist().index(3)) == 1


@pytest.mark.parametrize("n_items", [0, 1, 2])
def test_few_items(n_items):
    assert hierarchical_order(table(np.ones((n_items, 3)))).order.tolist() == list(range(n_items))


def test_many_items_are_ordered_by_their_clusters():
    rng = np.random.default_rng(2)
    group = rng.permutation(np.repeat(np.arange(5), MOST_LEAVES // 4))
    values = np.eye(5)[group] * 20 + rng.normal(size=(len(group), 5))
    found = hierarchical_order(table(values))
    assert not found.exact
    assert sorted(found.order.tolist()) == list(range(len(group)))
    assert (np.diff(group[found.order]) != 0).sum() == 4  # each group in one piece
    # The leaves of the tree are the clusters: from left to right, each one's items stand together.
    leaves = scipy_hierarchy.leaves_list(found.linkage)
    assert found.leaf[found.order].tolist() == np.repeat(leaves, np.bincount(found.leaf)[leaves]).tolist()


def test_ward_wants_euclidean_distances():
    with pytest.raises(SelectionError, match="Ward"):
        hierarchical_order(table(np.eye(3)), metric="cosine")
    with pytest.raises(SelectionError, match="'layer'"):
        hierarchical_order(table(np.eye(3)), axis="layer")
