"""How far a map of two dimensions may be believed.

Legend: Q item asked, N item, F feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.layouts import Matrix

__all__ = ["MapQuality", "map_quality"]

MOST_ASKED = 1000


@dataclass(frozen=True, kw_only=True)
class MapQuality:
    """How well neighborhoods survive on a map.

    Attributes:
        n_neighbors: size of the neighborhoods.
        trustworthiness: 1 if neighbors on the map are neighbors in truth; penalizes false neighbors by how far
            they are.
        continuity: 1 if neighbors in truth are neighbors on the map; penalizes torn ones by how far they went.
        neighbor_preservation: share of an item's true neighbors that are its neighbors on the map.
        chance_preservation: that share on a random map.
        n_asked: items whose neighborhoods were compared.
        shuffled_trustworthiness, shuffled_continuity, shuffled_preservation: the same three where the places of this
            map are dealt to its items at random: what a picture of this shape keeps that knows nothing.
    """

    n_neighbors: int
    trustworthiness: float
    continuity: float
    neighbor_preservation: float
    chance_preservation: float
    n_asked: int
    shuffled_trustworthiness: float = np.nan
    shuffled_continuity: float = np.nan
    shuffled_preservation: float = np.nan


def map_quality(values_NF: Matrix, points_N2: np.ndarray, *, n_neighbors: int = 15, seed: int = 0) -> MapQuality:
    """Trustworthiness, continuity and neighbor preservation of a map, at n_neighbors.

    T = 1 − 2 / (n k (2n − 3k − 1)) Σ_i Σ_j (r(i, j) − k), over items j among the k nearest of i on the map but not in
    truth, r their rank in truth; continuity is the same with map and truth exchanged. Of more than `MOST_ASKED`
    items, a seeded sample is asked, among all. The same of the map with its places dealt at random stands beside them.

    Args:
        values_NF: (item, feature), what was projected, dense or sparse.
        points_N2: (item, 2), the map.
        n_neighbors: k, made smaller where there are fewer than about 2k items.
        seed: of the sample and of the dealing.

    Returns:
        (no dimension) · MapQuality · 0 to 1; NaN of fewer than four items.

    References:
        Venna & Kaski 2001, "Neighborhood preservation in nonlinear projection methods".
    """
    n_items = values_NF.shape[0]
    # The formula's normalization needs k < n / 2.
    k = min(n_neighbors, (n_items - 1) // 2)
    if k < 1 or n_items < 4:
        return MapQuality(
            n_neighbors=k,
            trustworthiness=np.nan,
            continuity=np.nan,
            neighbor_preservation=np.nan,
            chance_preservation=np.nan,
            n_asked=0,
        )
    rng = np.random.default_rng(seed)
    asked = np.arange(n_items)
    if n_items > MOST_ASKED:
        asked = np.sort(rng.choice(n_items, MOST_ASKED, replace=False))
    truth_QN = _ranks(values_NF, asked)
    kept = _kept(truth_QN, _ranks(points_N2, asked), k=k)
    shuffled = _kept(truth_QN, _ranks(points_N2[rng.permutation(n_items)], asked), k=k)
    return MapQuality(
        n_neighbors=k,
        trustworthiness=kept[0],
        continuity=kept[1],
        neighbor_preservation=kept[2],
        chance_preservation=k / (n_items - 1),
        n_asked=len(asked),
        shuffled_trustworthiness=shuffled[0],
        shuffled_continuity=shuffled[1],
        shuffled_preservation=shuffled[2],
    )


def _kept(truth_QN: np.ndarray, map_QN: np.ndarray, *, k: int) -> tuple[float, float, float]:
    """Trustworthiness, continuity and neighbor preservation."""
    n_asked, n_items = truth_QN.shape
    near_truth, near_map = truth_QN <= k, map_QN <= k
    scale = 2 / (n_asked * k * (2 * n_items - 3 * k - 1))
    trust = 1 - scale * (truth_QN - k)[near_map & ~near_truth].sum()
    continuity = 1 - scale * (map_QN - k)[near_truth & ~near_map].sum()
    return float(trust), float(continuity), float((near_truth & near_map).sum() / (n_asked * k))


def _ranks(values_NF: Matrix, asked: np.ndarray) -> np.ndarray:
    """(Q, N) rank of every item by distance to the asked one, 1 the nearest; itself beyond all."""
    if isinstance(values_NF, np.ndarray):
        squares, products_QN = (values_NF**2).sum(axis=1), values_NF[asked] @ values_NF.T
    else:
        squares = np.asarray(values_NF.multiply(values_NF).sum(axis=1)).ravel()
        products_QN = (values_NF[asked] @ values_NF.T).toarray()
    distances_QN = squares[asked][:, None] + squares - 2 * products_QN
    distances_QN[np.arange(len(asked)), asked] = np.inf
    order = np.argsort(distances_QN, axis=1, kind="stable")
    ranks_QN = np.empty_like(order)
    np.put_along_axis(ranks_QN, order, np.arange(1, len(squares) + 1)[None], axis=1)
    return ranks_QN
