"""Compiled queues: the place of every assignment before its expert, and who falls off the end.

Legend: T token, L layer, R stored rank, E expert, F factor, G pass, C cell, B batch.
"""

from __future__ import annotations

from numba import njit

__all__ = ["queue_up"]


@njit(cache=True, nogil=True)
def queue_up(experts_TLR, keys, ranks, first_layer, capacity_FGL, waiting_GLE, drops, lost_TLF):  # type: ignore[no-untyped-def]
    """Put the tokens' assignments at these ranks into the queues of their passes, and count what is dropped.

    Every assignment takes a place in its expert's queue of the pass, dropped or not; it is dropped if its place is the
    capacity or beyond.

    Args:
        experts_TLR: ids; what is no expert is left out.
        keys: pass, cell and batch of each token; tokens of a negative pass are left out.
        ranks: (L, 2) first rank and the rank after the last.
        first_layer: the layer that comes first in the queues.
        capacity_FGL: capacity of each factor, pass and layer.
        waiting_GLE: length of every queue; it grows.
        drops: counts by (factor, layer) and cell, batch, and rank; they grow.
        lost_TLF: how many of a token's assignments were dropped; it grows.
    """
    pass_T, cell_T, batch_T = keys
    by_cell, by_batch, by_rank = drops
    n_factors = len(capacity_FGL)
    n_layers = waiting_GLE.shape[1]
    n_experts = waiting_GLE.shape[2]
    for token in range(len(experts_TLR)):
        group = pass_T[token]
        if group < 0:
            continue
        for layer in range(n_layers):
            for rank in range(ranks[layer, 0], ranks[layer, 1]):
                expert = experts_TLR[token, first_layer + layer, rank]
                if expert >= n_experts:
                    continue
                place = waiting_GLE[group, layer, expert]
                waiting_GLE[group, layer, expert] += 1
                for factor in range(n_factors):
                    if place >= capacity_FGL[factor, group, layer]:
                        by_cell[factor, layer, cell_T[token]] += 1
                        by_batch[factor, layer, batch_T[token]] += 1
                        by_rank[factor, layer, rank] += 1
                        lost_TLF[token, layer, factor] += 1
