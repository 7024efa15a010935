"""How uneven a count of few tokens is by chance alone.

Legend: E expert, B draw, S size.
"""

from __future__ import annotations

import numpy as np

from analysis.balance import balance_metrics, max_over_mean

__all__ = ["chance_of_sizes", "drawn_counts"]

GRID = 16
"""Sizes for which draws are made; between them numbers are read off a straight line in the logarithm of the size."""


def drawn_counts(
    n_tokens: int, *, rate_E: np.ndarray, top_k: int, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """(B, E) assignments of so many independent tokens that choose experts at these rates.

    A token takes k different experts, so a count scatters like a binomial of its tokens, less than a multinomial of
    all assignments: the multinomial is drawn and its deviations are drawn in accordingly.
    """
    share_E = rate_E / rate_E.sum()
    mean_E = n_tokens * top_k * share_E
    drawn_BE = rng.multinomial(n_tokens * top_k, share_E, size=n_draws).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        shrink_E = np.sqrt(np.clip((1 - top_k * share_E) / (1 - share_E), 0.0, 1.0))
    found: np.ndarray = np.maximum(mean_E + (drawn_BE - mean_E) * np.nan_to_num(shrink_E), 0.0)
    return found


def chance_of_sizes(
    n_tokens_S: np.ndarray, *, rate_E: np.ndarray, top_k: int, metric: str, seed: int, n_draws: int = 100
) -> np.ndarray:
    """Mean of a balance metric over draws of so many independent tokens.

    Args:
        n_tokens_S: sizes; 0 and less have no answer.
        rate_E: how often an expert is chosen; equal rates for an even router.
        top_k: experts a token.
        metric: column of `balance_metrics`.
        seed: of the draws.
        n_draws: for each size.

    Returns:
        (S) · the metric · NaN where the size is 0 or no expert is ever chosen.
    """
    sizes = np.unique(n_tokens_S[n_tokens_S > 0])
    found = np.full(len(n_tokens_S), np.nan)
    if not len(sizes) or not np.nansum(rate_E) > 0:
        return found
    rate_E = rate_E[np.isfinite(rate_E)]
    rng = np.random.default_rng(seed)
    grid = sizes
    if len(sizes) > GRID:
        grid = np.unique(np.geomspace(sizes[0], sizes[-1], GRID).round().astype(np.int64))
    means = []
    for size in grid:
        drawn_BE = drawn_counts(int(size), rate_E=rate_E, top_k=top_k, n_draws=n_draws, rng=rng)
        there_E = np.ones(len(rate_E), bool)
        if metric == "max_over_mean":
            values_B = max_over_mean(drawn_BE, exists=there_E)
        else:
            values_B = balance_metrics(drawn_BE, exists=there_E)[metric]
        means.append(values_B.mean())
    there = n_tokens_S > 0
    found[there] = np.interp(np.log(n_tokens_S[there]), np.log(grid), means)
    return found
