"""Clusters by other means: blocks of experts and tasks together, and dense regions with the rest left over.

Legend: I item, F feature, C cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from analysis.clustering import Clustering
from analysis.nulls import p_value
from analysis.signatures import complete_items

__all__ = ["CoClustering", "block_labels", "co_clusters", "dense_labels", "density_clusters"]

MOST_CLUSTERS = 6
SMALLEST_TABLE = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class CoClustering:
    """Blocks of items and features that go together.

    Attributes:
        items: (item) · block, the heaviest 0 · −1 for items without any number.
        features: (feature) · block · −1 for features without any number.
        n_clusters: how many blocks.
        modularity: share of the table's mass inside blocks, beyond what row and column sums put there.
        null_95: its 95th percentile where each feature is shuffled among items.
        p_value: how often shuffled tables reach it.
        stability: mean adjusted Rand index of the items' blocks with those of half of the features, drawn at random.
        by_n_clusters: index n_clusters · modularity.
        note: what a reader must know, or an empty text.
    """

    items: xr.DataArray
    features: xr.DataArray
    n_clusters: int
    modularity: float
    null_95: float
    p_value: float
    stability: float
    by_n_clusters: pd.Series
    note: str


def co_clusters(
    signatures: xr.DataArray,
    *,
    n_clusters: int | None = None,
    n_permutations: int = 40,
    n_halves: int = 20,
    seed: int = 0,
) -> CoClustering:
    """Blocks of experts and the tasks that they serve, found together (spectral co-clustering).

    The table must be of shares: loads and rates are taken as they are, lifts as the ratios that they are the logarithm
    of. The number of blocks is the one with the largest modularity.

    Args:
        signatures: (item, feature), as `analysis.signatures` gives them.
        n_clusters: how many blocks; None takes 2 to 6, whichever has the largest modularity.
        n_permutations: shuffled tables for the null; 0 for none.
        n_halves: halves of the features for the stability; 0 for none.
        seed: of everything random.

    Returns:
        (item) and (feature) · CoClustering of block numbers · −1 and up.

    References:
        Dhillon 2001 (spectral co-clustering); Barber 2007 (modularity of two-sided tables).
    """
    values_IF, kept = complete_items(signatures)
    if signatures.attrs.get("unit") == "log2 ratio":
        values_IF = 2.0 ** np.clip(values_IF, -20, 20)
    known_F = np.isfinite(np.asarray(signatures.to_numpy(), dtype=float)).any(axis=0)
    positive = values_IF.sum(axis=1) > 1e-12
    kept, values_IF = kept[positive], values_IF[positive]
    columns = np.flatnonzero(known_F)
    used_F = values_IF.sum(axis=0) > 1e-12 if len(values_IF) else np.zeros(len(columns), bool)
    values_IF, columns = values_IF[:, used_F], columns[used_F]
    item_labels = _empty(signatures, "item")
    feature_labels = _empty(signatures, "feature")
    if min(values_IF.shape, default=0) < SMALLEST_TABLE:
        return CoClustering(
            items=item_labels,
            features=feature_labels,
            n_clusters=0,
            modularity=np.nan,
            null_95=np.nan,
            p_value=np.nan,
            stability=np.nan,
            by_n_clusters=pd.Series(dtype=float, name="modularity"),
            note=f"A table of {values_IF.shape[0]} × {values_IF.shape[1]} is too small for blocks; "
            f"{SMALLEST_TABLE} × {SMALLEST_TABLE} would do.",
        )
    most = min(MOST_CLUSTERS, min(values_IF.shape) - 1)
    asked = range(2, most + 1) if n_clusters is None else (min(n_clusters, most),)
    cuts = {number: _blocks(values_IF, number, seed=seed) for number in asked}
    by_n = pd.Series({number: _modularity(values_IF, *cut) for number, cut in cuts.items()}, name="modularity")
    by_n = by_n.rename_axis("n_clusters")
    best = int(by_n.idxmax())
    items, features = cuts[best]
    rng = np.random.default_rng(seed)
    null = np.array([_best(rng.permuted(values_IF, axis=0), asked, seed=seed) for _ in range(n_permutations)])
    # The heaviest block first, so that numbers mean the same from run to run.
    mass = [values_IF[np.ix_(items == block, features == block)].sum() for block in range(best)]
    rank = np.empty(best, dtype=int)
    rank[np.argsort(-np.array(mass), kind="stable")] = np.arange(best)
    item_labels[kept], feature_labels[columns] = rank[items], rank[features]
    return CoClustering(
        items=item_labels,
        features=feature_labels,
        n_clusters=best,
        modularity=float(by_n[best]),
        null_95=float(np.quantile(null, 0.95)) if len(null) else np.nan,
        p_value=float(p_value(int((null >= by_n[best] - 1e-12).sum()), n_permutations=len(null)))
        if len(null)
        else np.nan,
        stability=_stability(values_IF, items, best, n_halves=n_halves, rng=rng, seed=seed),
        by_n_clusters=by_n,
        note="",
    )


def density_clusters(
    signatures: xr.DataArray, *, smallest: int = 5, n_permutations: int = 50, seed: int = 0
) -> Clustering:
    """Dense regions of items (HDBSCAN); items in none of them keep the label −1.

    Unlike a tree, it says that an item belongs nowhere. The null shuffles each feature among items; `p_value` compares
    the silhouette of the clustered items times their share of all.

    Args:
        signatures: (item, feature), as `analysis.signatures` gives them.
        smallest: fewest items of a cluster.
        n_permutations: shuffles for the null; 0 for none.
        seed: of the shuffles.

    Returns:
        (item) · Clustering of cluster numbers, the largest 0 · −1 and up; stability NaN.

    References:
        Campello, Moulavi & Sander 2013 (HDBSCAN).
    """
    values_IF, kept = complete_items(signatures)
    labels = _empty(signatures, "item")
    found = dense_labels(values_IF, smallest=smallest)
    observed, silhouette = _worth(values_IF, found)
    rng = np.random.default_rng(seed)
    null = np.array(
        [
            _worth(shuffled, dense_labels(shuffled, smallest=smallest))[0]
            for shuffled in (rng.permuted(values_IF, axis=0) for _ in range(n_permutations if len(values_IF) else 0))
        ]
    )
    sizes = np.bincount(found[found >= 0]) if (found >= 0).any() else np.zeros(0, int)
    rank = np.empty(len(sizes), dtype=int)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    labels[kept] = np.where(found >= 0, rank[np.maximum(found, 0)] if len(sizes) else -1, -1)
    n_left = int((found < 0).sum())
    return Clustering(
        labels=labels,
        n_clusters=len(sizes),
        silhouette=silhouette,
        null_95=float(np.quantile(null, 0.95)) if len(null) else np.nan,
        p_value=float(p_value(int((null >= observed - 1e-12).sum()), n_permutations=len(null)))
        if len(null)
        else np.nan,
        stability=np.nan,
        by_n_clusters=pd.Series({len(sizes): silhouette}, name="silhouette").rename_axis("n_clusters"),
        method="hdbscan",
        note=f"{n_left} of {len(found)} items are in no cluster." if n_left else "",
    )


def block_labels(values_IF: np.ndarray, *, n_clusters: int | None = None, seed: int = 0) -> np.ndarray:
    """(item,) block of each item of a table of shares; of as many as have the largest modularity, of 2 to 6."""
    used_IF = values_IF[:, values_IF.sum(axis=0) > 1e-12]
    most = min(MOST_CLUSTERS, min(used_IF.shape) - 1)
    if most < 2:
        return np.zeros(len(used_IF), dtype=int)
    asked = range(2, most + 1) if n_clusters is None else (min(n_clusters, most),)
    cuts = [_blocks(used_IF, number, seed=seed) for number in asked]
    best = max(cuts, key=lambda cut: _modularity(used_IF, *cut))
    return best[0]


def _empty(signatures: xr.DataArray, dim: str) -> xr.DataArray:
    coords = {name: coord for name, coord in signatures.coords.items() if coord.dims == (dim,)}
    return xr.DataArray(np.full(signatures.sizes[dim], -1), dims=dim, coords=coords, name="cluster")


def _blocks(values_IF: np.ndarray, n_clusters: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    # Slow to import, and not every view clusters.
    from sklearn.cluster import SpectralCoclustering

    # A cell of nothing would leave a part of the graph by itself.
    smoothed = values_IF + 1e-9 * values_IF.mean()
    found = SpectralCoclustering(n_clusters=n_clusters, random_state=seed, n_init=2).fit(smoothed)
    return found.row_labels_, found.column_labels_


def _modularity(values_IF: np.ndarray, items: np.ndarray, features: np.ndarray) -> float:
    share = values_IF / values_IF.sum()
    expected = np.outer(share.sum(axis=1), share.sum(axis=0))
    return float((share - expected)[items[:, None] == features].sum())


def _best(values_IF: np.ndarray, asked: range | tuple[int, ...], *, seed: int) -> float:
    return max(_modularity(values_IF, *_blocks(values_IF, number, seed=seed)) for number in asked)


def _stability(
    values_IF: np.ndarray, items: np.ndarray, n_clusters: int, *, n_halves: int, rng: np.random.Generator, seed: int
) -> float:
    from sklearn.metrics import adjusted_rand_score

    agreements = []
    n_half = max(n_clusters, values_IF.shape[1] // 2)
    for _ in range(n_halves):
        half = values_IF[:, np.sort(rng.choice(values_IF.shape[1], n_half, replace=False))]
        filled = half.sum(axis=1) > 1e-12
        again = _blocks(half[filled], n_clusters, seed=seed)[0]
        agreements.append(adjusted_rand_score(items[filled], again))
    return float(np.mean(agreements)) if agreements else np.nan


def dense_labels(values_IF: np.ndarray, *, smallest: int) -> np.ndarray:
    """(item,) dense region of each item (HDBSCAN), −1 for none."""
    from sklearn.cluster import HDBSCAN

    if len(values_IF) <= max(2, smallest):
        return np.full(len(values_IF), -1)
    labels: np.ndarray = HDBSCAN(min_cluster_size=max(2, smallest), copy=True).fit_predict(values_IF)
    return np.maximum(labels, -1)


def _worth(values_IF: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Silhouette of the clustered items times their share of all, and the silhouette."""
    from sklearn.metrics import silhouette_score

    inside = labels >= 0
    n_clusters = len(np.unique(labels[inside]))
    if n_clusters < 2 or inside.sum() <= n_clusters:
        return 0.0, float("nan")
    silhouette = float(silhouette_score(values_IF[inside], labels[inside]))
    return silhouette * float(inside.mean()), silhouette
