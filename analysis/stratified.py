"""Tests of a label of prompts against experts, dealt within groups: one engine for groups, scores and pairs.

Legend: P prompt, X expert of any layer, B permutation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.nulls import Z_BINS, PooledNull

__all__ = ["Tested", "deal_labels", "turn_pairs"]

_BATCH_CELLS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Tested:
    """Test of one label against many experts.

    Attributes:
        total: Σ_p c_p x_p, c the label less its mean in the prompt's group.
        z: that in standard deviations of its null, which are known exactly; NaN where it cannot vary.
        n_exceeding: how often permutations reach |z|.
        deviation: standard deviation of the total under the null.
        largest: of each permutation, the largest |z| of all experts.
    """

    total: np.ndarray
    z: np.ndarray
    n_exceeding: np.ndarray
    deviation: np.ndarray
    largest: np.ndarray


def deal_labels(
    values_PX: np.ndarray,
    label_P: np.ndarray,
    strata_P: np.ndarray,
    *,
    n_permutations: int,
    seed: int,
    pooled: PooledNull,
) -> Tested:
    """Whether experts go with a label, beyond what dealing the label within groups does.

    Args:
        values_PX: rates of the prompts, without gaps.
        label_P: 0 and 1, or any number.
        strata_P: group of each prompt; labels are dealt within it.
        n_permutations: deals.
        seed: of the deals.
        pooled: takes in the |z| of all experts under all deals.
    """
    members = [np.flatnonzero(strata_P == stratum) for stratum in np.unique(strata_P)]
    centered_P, variance_X = label_P.astype(float).copy(), np.zeros(values_PX.shape[1])
    for mine in members:
        centered_P[mine] -= centered_P[mine].mean()
        if len(mine) > 1:
            scatter = ((values_PX[mine] - values_PX[mine].mean(axis=0)) ** 2).sum(axis=0)
            variance_X += (centered_P[mine] ** 2).sum() * scatter / (len(mine) - 1)
    total_X = centered_P @ values_PX
    deviation_X = np.sqrt(variance_X)
    varies_X = deviation_X > 1e-9
    z_X = np.where(varies_X, total_X / np.where(varies_X, deviation_X, 1.0), np.nan)
    n_exceeding = np.zeros(len(z_X), dtype=np.int64)
    largest = [np.zeros(0)]
    # Only groups in which the label varies are dealt, and what varies is tested.
    dealt_from = [mine for mine in members if np.ptp(centered_P[mine]) > 1e-12]
    if n_permutations and varies_X.any() and dealt_from:
        rng = np.random.default_rng(seed)
        rows = np.concatenate(dealt_from)
        part_PX = values_PX[np.ix_(rows, varies_X)]
        limit_X = np.abs(z_X[varies_X]) - 1e-9
        step = max(1, _BATCH_CELLS // max(len(rows), part_PX.shape[1]))
        for first in range(0, n_permutations, step):
            n_rows = min(step, n_permutations - first)
            dealt = [rng.permuted(np.tile(centered_P[mine], (n_rows, 1)), axis=1) for mine in dealt_from]
            null_BX = np.abs(np.concatenate(dealt, axis=1) @ part_PX) / deviation_X[varies_X]
            n_exceeding[varies_X] += (null_BX >= limit_X).sum(axis=0)
            largest.append(null_BX.max(axis=1))
            pooled.add(_binned(null_BX))
    return Tested(total=total_X, z=z_X, n_exceeding=n_exceeding, deviation=deviation_X, largest=np.concatenate(largest))


def turn_pairs(difference_PX: np.ndarray, *, n_permutations: int, seed: int, pooled: PooledNull) -> Tested:
    """Whether differences of pairs are other than 0, beyond what turning pairs around at random does."""
    total_X = difference_PX.sum(axis=0)
    deviation_X = np.sqrt((difference_PX**2).sum(axis=0))
    varies_X = deviation_X > 1e-9
    z_X = np.where(varies_X, total_X / np.where(varies_X, deviation_X, 1.0), np.nan)
    n_exceeding = np.zeros(len(z_X), dtype=np.int64)
    largest = [np.zeros(0)]
    if n_permutations and varies_X.any():
        rng = np.random.default_rng(seed)
        part_PX = difference_PX[:, varies_X]
        limit_X = np.abs(z_X[varies_X]) - 1e-9
        step = max(1, _BATCH_CELLS // max(part_PX.shape))
        for first in range(0, n_permutations, step):
            sign_BP = rng.choice([-1.0, 1.0], size=(min(step, n_permutations - first), len(part_PX)))
            null_BX = np.abs(sign_BP @ part_PX) / deviation_X[varies_X]
            n_exceeding[varies_X] += (null_BX >= limit_X).sum(axis=0)
            largest.append(null_BX.max(axis=1))
            pooled.add(_binned(null_BX))
    return Tested(total=total_X, z=z_X, n_exceeding=n_exceeding, deviation=deviation_X, largest=np.concatenate(largest))


def _binned(null_BX: np.ndarray) -> np.ndarray:
    n_bins, per_unit = Z_BINS
    place = np.minimum((null_BX * per_unit).astype(np.int64), n_bins - 1)
    found: np.ndarray = np.bincount(place.ravel(), minlength=n_bins)
    return found
