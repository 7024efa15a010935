"""How evenly work is spread over the experts of a layer: metrics of one row of counts.

Legend: E expert, and any dimensions before it. Experts that a layer does not have are masked out.
"""

from __future__ import annotations

import numpy as np

__all__ = ["BALANCE_UNITS", "balance_metrics", "max_over_mean"]

BALANCE_UNITS = {
    "max_over_mean": "ratio",
    "min_over_mean": "ratio",
    "min_over_max": "ratio",
    "mean_violation": "ratio",
    "cv": "ratio",
    "gini": "0 to 1",
    "entropy_normalized": "share of ln(experts)",
    "effective_experts": "experts",
    "hhi": "0 to 1",
    "n_dead": "experts",
    "n_cold": "experts",
}
"""Columns of `balance_metrics` and their units."""


def max_over_mean(counts: np.ndarray, *, exists: np.ndarray) -> np.ndarray:
    """The metric of this name alone, for who asks it of many draws.

    Args:
        counts: (…, E) assignments, or weighted sums of them.
        exists: (…, E), broadcast against counts; which experts there are.

    Returns:
        (…) · ratio · 1 and up; NaN where nothing was assigned.
    """
    counts = np.where(exists, counts, 0.0)
    n_experts = np.broadcast_to(exists, counts.shape).sum(axis=-1)
    total = counts.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(total > 0, counts.max(axis=-1, initial=0.0) / (total / n_experts), np.nan)
    return found


def balance_metrics(counts: np.ndarray, *, exists: np.ndarray, cold_below: float = 0.1) -> dict[str, np.ndarray]:
    """Metrics of the spread of assignments over experts, by name as in `BALANCE_UNITS`.

    Args:
        counts: (…, E) assignments, or weighted sums of them.
        exists: (…, E), broadcast against counts; which experts there are.
        cold_below: an expert is cold if it has less than this share of the mean.

    Returns:
        (…) each · units of `BALANCE_UNITS` · NaN where nothing was assigned.
    """
    there = np.broadcast_to(exists, counts.shape)
    counts = np.where(there, counts, 0.0)
    n_experts = there.sum(axis=-1)
    total = counts.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(total > 0, total / n_experts, np.nan)
        share = counts / np.where(total > 0, total, np.nan)[..., None]
        entropy = -np.where(share > 0, share * np.log(share), 0.0).sum(axis=-1)
        entropy = np.where(total > 0, entropy, np.nan)
        deviation = np.where(there, counts - mean[..., None], 0.0)
        largest = np.where(there, counts, -np.inf).max(axis=-1, initial=-np.inf)
        smallest = np.where(there, counts, np.inf).min(axis=-1, initial=np.inf)
        largest, smallest = (np.where(total > 0, each, np.nan) for each in (largest, smallest))
        # One expert is as even as one can be, though ln 1 leaves 0/0.
        normalized = np.where(n_experts > 1, entropy / np.log(np.maximum(n_experts, 2)), np.where(total > 0, 1, np.nan))
        cold = there & (counts < cold_below * mean[..., None])
        return {
            "max_over_mean": largest / mean,
            "min_over_mean": smallest / mean,
            "min_over_max": smallest / largest,
            "mean_violation": np.abs(deviation).sum(axis=-1) / n_experts / mean,
            "cv": np.sqrt((deviation**2).sum(axis=-1) / n_experts) / mean,
            "gini": _gini(counts, there=there, n_experts=n_experts, total=total),
            "entropy_normalized": normalized,
            "effective_experts": np.exp(entropy),
            "hhi": np.where(total > 0, (share**2).sum(axis=-1), np.nan),
            "n_dead": np.where(total > 0, (there & (counts == 0)).sum(axis=-1), np.nan),
            "n_cold": np.where(total > 0, cold.sum(axis=-1), np.nan),
        }


def _gini(counts: np.ndarray, *, there: np.ndarray, n_experts: np.ndarray, total: np.ndarray) -> np.ndarray:
    # Missing experts sort to the front as zeros; ranks are counted from the first that exists.
    ascending = np.sort(np.where(there, counts, -1.0), axis=-1)
    ascending = np.where(ascending < 0, 0.0, ascending)
    n_missing = counts.shape[-1] - n_experts
    rank = np.arange(1, counts.shape[-1] + 1) - n_missing[..., None]
    weighted = ((2 * rank - n_experts[..., None] - 1) * ascending).sum(axis=-1)
    return np.where(total > 0, weighted / (n_experts * np.where(total > 0, total, np.nan)), np.nan)
