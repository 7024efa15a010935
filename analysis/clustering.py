"""Groups of things that are routed alike, and whether they would be found again.

Legend: I item, F feature, C cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from analysis.nulls import p_value
from analysis.signatures import complete_items

__all__ = ["MOST_REDRAWN", "SMALLEST_CLUSTERABLE", "Clustering", "clusters", "ward_labels"]

MOST_ITEMS = 1500
"""Most items for which all distances are held; of more, a seeded sample stands for the choice of their number."""

MOST_REDRAWN = 500
"""Most items that are clustered again and again, for null and stability."""

MOST_CLUSTERS = 12
SMALLEST_CLUSTERABLE = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Clustering:
    """Clusters of items, and how far they can be trusted.

    Attributes:
        labels: (item) · cluster number, the largest cluster first · 0 and up, −1 for items without any number.
        n_clusters: how many.
        silhouette: how much nearer items lie to their own cluster than to the next: 1 apart, 0 touching.
        null_95: 95th percentile of the best silhouette where features are shuffled among items.
        p_value: how often shuffled features give as good a silhouette.
        stability: mean adjusted Rand index with clusters of redrawn items: 1 the same, 0 unrelated.
        by_n_clusters: index n_clusters · silhouette.
        method: "ward" or "k-means".
        note: what a reader must know, or an empty text.
    """

    labels: xr.DataArray
    n_clusters: int
    silhouette: float
    null_95: float
    p_value: float
    stability: float
    by_n_clusters: pd.Series
    method: str
    note: str


def clusters(
    signatures: xr.DataArray,
    *,
    n_clusters: int | None = None,
    n_permutations: int = 50,
    n_bootstrap: int = 50,
    seed: int = 0,
) -> Clustering:
    """Clusters of items by their signatures: Ward's tree, cut where the silhouette is best.

    Features, never a picture of two dimensions, decide. Clusters come out of any cloud of points; `p_value` tells
    whether these are better than those of items whose features are shuffled independently, `stability` whether
    other draws of items give them again. Above `MOST_REDRAWN` items both come from a sample; above `MOST_ITEMS`
    k-means takes the place of the tree.

    Args:
        signatures: (item, feature), as `analysis.signatures` gives them.
        n_clusters: how many; None takes 2 to 12, whichever has the best silhouette.
        n_permutations: shuffles for the null; 0 for none.
        n_bootstrap: draws for the stability; 0 for none.
        seed: of everything random.

    Returns:
        (item) · Clustering of cluster numbers · −1 and up.

    References:
        Ward 1963; Rousseeuw 1987 (silhouette); Hennig 2007 (stability under redrawing).
    """
    values_IF, kept = complete_items(signatures)
    coords = {name: coord for name, coord in signatures.coords.items() if coord.dims == ("item",)}
    labels = xr.DataArray(np.full(signatures.sizes["item"], -1), dims="item", coords=coords, name="cluster")
    n_items = len(values_IF)
    if n_items < SMALLEST_CLUSTERABLE:
        labels[kept] = 0
        return Clustering(
            labels=labels,
            n_clusters=min(1, n_items),
            silhouette=np.nan,
            null_95=np.nan,
            p_value=np.nan,
            stability=np.nan,
            by_n_clusters=pd.Series(dtype=float, name="silhouette"),
            method="ward",
            note=f"{n_items} items are too few to be clustered; {SMALLEST_CLUSTERABLE} would do.",
        )
    rng = np.random.default_rng(seed)
    small = n_items <= MOST_ITEMS
    sample_IF = _sample(values_IF, MOST_ITEMS, rng)
    asked = range(2, min(MOST_CLUSTERS, n_items - 1) + 1) if n_clusters is None else (min(n_clusters, n_items),)
    distances_II = _distances(sample_IF)
    cuts = _cuts(distances_II, asked)
    by_n = _silhouettes(distances_II, cuts)
    best = int(by_n.idxmax())
    found = cuts[best] if small else _k_means(values_IF, best, seed=seed)
    redrawn_IF = _sample(sample_IF, MOST_REDRAWN, rng)
    redrawn_II = _distances(redrawn_IF)
    observed = _best_silhouette(redrawn_II, asked)
    shuffles = (_distances(rng.permuted(redrawn_IF, axis=0)) for _ in range(n_permutations))
    null = np.array([_best_silhouette(each, asked) for each in shuffles])
    labels[kept] = _largest_first(found)
    return Clustering(
        labels=labels,
        n_clusters=len(np.unique(found)),
        silhouette=float(by_n[best]),
        null_95=float(np.quantile(null, 0.95)) if len(null) else np.nan,
        p_value=float(p_value(int((null >= observed).sum()), n_permutations=len(null))) if len(null) else np.nan,
        stability=_stability(redrawn_II, best, n_bootstrap=n_bootstrap, rng=rng),
        by_n_clusters=by_n,
        method="ward" if small else "k-means",
        note=""
        if n_items <= MOST_REDRAWN
        else f"Null and stability come from a sample of {MOST_REDRAWN:,} of {n_items:,} items.",
    )


def ward_labels(values_IF: np.ndarray, *, n_clusters: int | None = None) -> np.ndarray:
    """Clusters of so many of Ward's tree, or of as many as have the best silhouette, of 2 to 12."""
    distances_II = _distances(values_IF)
    asked = range(2, min(MOST_CLUSTERS, len(values_IF) - 1) + 1) if n_clusters is None else (n_clusters,)
    cuts = _cuts(distances_II, asked)
    return cuts[n_clusters if n_clusters is not None else int(_silhouettes(distances_II, cuts).idxmax())]


def _sample(values_IF: np.ndarray, n_items: int, rng: np.random.Generator) -> np.ndarray:
    if len(values_IF) <= n_items:
        return values_IF
    return values_IF[np.sort(rng.choice(len(values_IF), n_items, replace=False))]


def _distances(values_IF: np.ndarray) -> np.ndarray:
    """Distances of all pairs, by one product of matrices: signatures may have thousands of features."""
    centered_IF = values_IF - values_IF.mean(axis=0)
    squares = (centered_IF**2).sum(axis=1)
    between_II = squares[:, None] + squares - 2 * centered_IF @ centered_IF.T
    # Rounding of the product, which would make identical items differ.
    between_II[between_II < 1e-12 * max(1.0, float(squares.max(initial=0.0)))] = 0.0
    distances_II: np.ndarray = np.sqrt((between_II + between_II.T) / 2)
    np.fill_diagonal(distances_II, 0.0)
    return distances_II


def _cuts(distances_II: np.ndarray, numbers: range | tuple[int, ...]) -> dict[int, np.ndarray]:
    """Labels of Ward's tree cut into each number of clusters; into fewer where items coincide."""
    # Slow to import, and not every view clusters.
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    tree = hierarchy.ward(squareform(distances_II, checks=False))
    return {number: hierarchy.fcluster(tree, number, criterion="maxclust") - 1 for number in numbers}


def _k_means(values_IF: np.ndarray, n_clusters: int, *, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    labels: np.ndarray = KMeans(n_clusters=n_clusters, n_init=4, random_state=seed).fit_predict(values_IF)
    return labels


def _best_silhouette(distances_II: np.ndarray, numbers: range | tuple[int, ...]) -> float:
    return float(_silhouettes(distances_II, _cuts(distances_II, numbers)).max())


def _silhouettes(distances_II: np.ndarray, labels: dict[int, np.ndarray]) -> pd.Series:
    """Mean silhouette of each labelling; items alone in their cluster count 0."""
    items = np.arange(len(distances_II))
    found = {}
    for number, label_I in labels.items():
        if label_I.max() == 0:
            found[number] = 0.0
            continue
        member_IC = np.eye(label_I.max() + 1)[label_I]
        size_C = member_IC.sum(axis=0)
        total_IC = distances_II @ member_IC
        own = total_IC[items, label_I] / np.maximum(size_C[label_I] - 1, 1)
        mean_IC = total_IC / size_C
        mean_IC[items, label_I] = np.inf
        nearest = mean_IC.min(axis=1)
        larger = np.maximum(own, nearest)
        width = np.where((size_C[label_I] > 1) & (larger > 0), (nearest - own) / np.where(larger > 0, larger, 1), 0.0)
        found[number] = float(width.mean())
    return pd.Series(found, name="silhouette").rename_axis("n_clusters")


def _stability(distances_II: np.ndarray, n_clusters: int, *, n_bootstrap: int, rng: np.random.Generator) -> float:
    from sklearn.metrics import adjusted_rand_score

    whole = _cuts(distances_II, (n_clusters,))[n_clusters]
    agreements = []
    for _ in range(n_bootstrap):
        drawn = np.unique(rng.integers(0, len(distances_II), len(distances_II)))
        if len(drawn) > n_clusters:
            again = _cuts(distances_II[np.ix_(drawn, drawn)], (n_clusters,))[n_clusters]
            agreements.append(adjusted_rand_score(whole[drawn], again))
    return float(np.mean(agreements)) if agreements else np.nan


def _largest_first(labels: np.ndarray) -> np.ndarray:
    sizes = np.bincount(labels)
    rank = np.empty(len(sizes), dtype=int)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[labels]
