"""Compiled loops over one chunk that ask for one expert, or for one layer.

Legend: T token, L layer, R stored rank, N token that was kept.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["kept_ranks", "rank_of_expert"]


@njit(cache=True, nogil=True)
def rank_of_expert(experts_TLR, layer, expert, first, stop):  # type: ignore[no-untyped-def]
    """At which of the ranks first to stop each token has the expert, -1 where at none; -2 where it was not routed.

    A token's experts are distinct, so the first found is the only one. A token that has no expert at rank 0 was not
    routed by the layer.

    Args:
        experts_TLR: ids; the largest value of their type where there is none.
        layer: its number.
        expert: its number.
        first: rank to begin with.
        stop: rank to end before.

    Returns:
        (T) int16.
    """
    absent = np.iinfo(experts_TLR.dtype).max
    found_T = np.empty(len(experts_TLR), np.int16)
    for token in range(len(experts_TLR)):
        ids = experts_TLR[token, layer]
        found_T[token] = -2 if ids[0] == absent else -1
        for rank in range(first, stop):
            if ids[rank] == expert:
                found_T[token] = rank
                break
    return found_T


@njit(cache=True, nogil=True)
def kept_ranks(experts_TLR, layer, n_ranks, n_experts):  # type: ignore[no-untyped-def]
    """The first ranks of the tokens that have an expert at all of them, and which tokens these are.

    Args:
        experts_TLR: ids; what is no expert is at least `n_experts`.
        layer: its number.
        n_ranks: how many ranks.
        n_experts: how many experts the layer has.

    Returns:
        (N, R) as the ids, and (N) int64 places.
    """
    kept_NR = np.empty((len(experts_TLR), n_ranks), experts_TLR.dtype)
    place_N = np.empty(len(experts_TLR), np.int64)
    n_kept = 0
    for token in range(len(experts_TLR)):
        ids = experts_TLR[token, layer]
        is_whole = True
        for rank in range(n_ranks):
            is_whole = is_whole and ids[rank] < n_experts
            kept_NR[n_kept, rank] = ids[rank]
        place_N[n_kept] = token
        n_kept += is_whole
    return kept_NR[:n_kept], place_N[:n_kept]
