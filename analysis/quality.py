"""How far a map of two dimensions may be believed.

Legend: Q item asked, N item, F feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    """

    n_neighbors: int
    trustworthiness: float
    continuity: float
    neighbor_preservation: float
    chance_preservation: float
    n_asked: int


def map_quality(values_NF: np.ndarray, points_N2: np.ndarray, *, n_neighbors: int = 15, seed: int = 0) -> MapQuality:
    """Trustworthiness, continuity and neighbor preservation of a map, at n_neighbors.

    T = 1 − 2 / (n k (2n − 3k − 1)) Σ_i Σ_j (r(i, j) − k), over items j among the k nearest of i on the map but not in
    truth, r their rank in truth; continuity is the same with map and truth exchanged. Of more than `MOST_ASKED`
    items, a seeded sample is asked, among all.

    Args:
        values_NF: (item, feature), what was projected.
        points_N2: (item, 2), the map.
        n_neighbors: k, made smaller where there are fewer than about 2k items.
        seed: of the sample.

    Returns:
        (no dimension) · MapQuality · 0 to 1; NaN of fewer than four items.

    References:
        Venna & Kaski 2001, "Neighborhood preservation in nonlinear projection methods".
    """
    n_items = len(values_NF)
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
    asked = np.arange(n_items)
    if n_items > MOST_ASKED:
        asked = np.sort(np.random.default_rng(seed).choice(n_items, MOST_ASKED, replace=False))
    truth_QN, map_QN = _ranks(values_NF, asked), _ranks(points_N2, asked)
    near_truth, near_map = truth_QN <= k, map_QN <= k
    scale = 2 / (len(asked) * k * (2 * n_items - 3 * k - 1))
    return MapQuality(
        n_neighbors=k,
        trustworthiness=float(1 - scale * (truth_QN - k)[near_map & ~near_truth].sum()),
        continuity=float(1 - scale * (map_QN - k)[near_truth & ~near_map].sum()),
        neighbor_preservation=float((near_truth & near_map).sum() / (len(asked) * k)),
        chance_preservation=k / (n_items - 1),
        n_asked=len(asked),
    )


def _ranks(values_NF: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(Q, N) rank of every item by distance to the asked one, 1 the nearest; itself beyond all."""
    squares = (values_NF**2).sum(axis=1)
    distances_QN = squares[asked][:, None] + squares - 2 * values_NF[asked] @ values_NF.T
    distances_QN[np.arange(len(asked)), asked] = np.inf
    order = np.argsort(distances_QN, axis=1, kind="stable")
    ranks_QN = np.empty_like(order)
    np.put_along_axis(ranks_QN, order, np.arange(1, len(values_NF) + 1)[None], axis=1)
    return ranks_QN
