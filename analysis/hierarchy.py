"""An order of rows in which neighbors are alike, for heatmaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.signatures import complete_items
from routing.errors import SelectionError

__all__ = ["MOST_LEAVES", "Method", "Metric", "Order", "hierarchical_order"]

Method = Literal["ward", "average"]
Metric = Literal["euclidean", "cosine", "correlation"]

MOST_LEAVES = 600
"""Most items for the best order of leaves, which takes a second; twice as many take ten, so beyond it clusters of
items are ordered instead."""

N_CENTROIDS = 300


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """An order of items.

    Attributes:
        order: places of all items, like ones beside each other; items without any number come last.
        linkage: tree over its leaves, as scipy writes it; None where there are fewer than two.
        leaf: of each item, its leaf of the tree: a leaf is one item, or a cluster of them where there are too many;
            −1 for items without any number.
        n_left_out: items without any number.
        exact: whether the order is the best one for the tree; False where clusters were ordered instead.
    """

    order: np.ndarray
    linkage: np.ndarray | None
    leaf: np.ndarray
    n_left_out: int
    exact: bool


def hierarchical_order(
    table: xr.DataArray | pd.DataFrame,
    *,
    axis: str | int = 0,
    metric: Metric = "euclidean",
    method: Method = "ward",
) -> Order:
    """An order of the items along one axis of a table, from clustering them.

    Up to `MOST_LEAVES` items, the leaves of the tree are turned so that neighbors are as near as they can be. Above,
    items are first gathered around centroids; the centroids are ordered so, and items within one by their place
    along the line to the next.

    Args:
        table: two dimensions; items along `axis`, their features along the other.
        axis: name or number of the dimension to order.
        metric: distance of two items; "ward" wants "euclidean".
        method: how clusters are joined.

    Returns:
        (item) · Order of places · 0 to n − 1.

    Raises:
        SelectionError: the table has no such axis, or method and metric do not fit.

    References:
        Bar-Joseph et al. 2001, "Fast optimal leaf ordering for hierarchical clustering".
    """
    if method == "ward" and metric != "euclidean":
        msg = f"Ward joins clusters by euclidean distance, not by {metric!r}. Take method 'average', or the metric."
        raise SelectionError(msg)
    values, kept = complete_items(_along(table, axis=axis))
    n_items = int(np.asarray(table).shape[_number(table, axis=axis)])
    left_out = np.setdiff1d(np.arange(n_items), kept)
    linkage, exact = None, True
    leaf = np.full(n_items, -1)
    leaf[kept] = np.arange(len(kept))
    if len(kept) < 2:
        inner = np.arange(len(kept))
    elif len(kept) <= MOST_LEAVES:
        linkage = _tree(values, metric=metric, method=method)
        inner = _leaves(linkage)
    else:
        exact = False
        inner, linkage, leaf[kept] = _by_centroids(values, metric=metric, method=method)
    order = np.concatenate([kept[inner], left_out])
    return Order(order=order, linkage=linkage, leaf=leaf, n_left_out=len(left_out), exact=exact)


def _number(table: xr.DataArray | pd.DataFrame, *, axis: str | int) -> int:
    if np.ndim(table) == 2:
        if isinstance(axis, int) and axis in (0, 1):
            return axis
        if isinstance(table, xr.DataArray) and axis in table.dims:
            return table.dims.index(axis)
    names = list(table.dims) if isinstance(table, xr.DataArray) else [0, 1]
    msg = f"The table has the dimensions {names}, and {axis!r} is to be ordered. Give a table of two and one of them."
    raise SelectionError(msg)


def _along(table: xr.DataArray | pd.DataFrame, *, axis: str | int) -> xr.DataArray:
    values = np.asarray(table, dtype=float)
    return xr.DataArray(values if _number(table, axis=axis) == 0 else values.T, dims=("item", "feature"))


def _tree(values: np.ndarray, *, metric: Metric, method: Method) -> np.ndarray:
    # Slow to import, and not every view orders.
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import pdist

    # The cosine of an item without any activity is undefined; such an item is taken as unlike all others.
    distances = np.nan_to_num(pdist(values, metric=metric), nan=1.0)
    tree = hierarchy.linkage(distances, method=method)
    ordered: np.ndarray = hierarchy.optimal_leaf_ordering(tree, distances)
    return ordered


def _leaves(tree: np.ndarray) -> np.ndarray:
    from scipy.cluster import hierarchy

    leaves: np.ndarray = hierarchy.leaves_list(tree)
    return leaves


def _by_centroids(values: np.ndarray, *, metric: Metric, method: Method) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places in order, the tree of the centroids, and the centroid of each item."""
    from sklearn.cluster import KMeans

    if metric != "euclidean":
        length = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.where(length > 0, length, 1.0)
    found = KMeans(n_clusters=N_CENTROIDS, n_init=1, max_iter=20, random_state=0).fit(values)
    centers = found.cluster_centers_
    tree = _tree(centers, metric=metric, method=method)
    order = _leaves(tree)
    parts = []
    for place, center in enumerate(order):
        members = np.flatnonzero(found.labels_ == center)
        before, after = centers[order[max(place - 1, 0)]], centers[order[min(place + 1, len(order) - 1)]]
        parts.append(members[np.argsort(values[members] @ (after - before), kind="stable")])
    return np.concatenate(parts), tree, found.labels_
