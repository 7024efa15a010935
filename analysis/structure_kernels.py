"""Compiled loops over one chunk: which experts and nodes come together in a token.

Legend: T token, L layer, R stored rank, E expert, B block of prompts, N node, V replica.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["count_nodes", "count_pairs"]


@njit(cache=True, nogil=True)
def count_pairs(experts_TLR, block_T, top_k_L, first_layer, n_blocks, n_experts):  # type: ignore[no-untyped-def]
    """How many tokens of each block choose both experts, the smaller number first; single choices on the diagonal.

    Returns:
        (B, L, E, E) uint32 and (B, L) uint32, the tokens that were routed.
    """
    n_layers = len(top_k_L)
    pairs = np.zeros((n_blocks, n_layers, n_experts, n_experts), np.uint32)
    tokens = np.zeros((n_blocks, n_layers), np.uint32)
    for token in range(len(experts_TLR)):
        block = block_T[token]
        if block < 0:
            continue
        for layer in range(n_layers):
            ids = experts_TLR[token, first_layer + layer]
            if ids[0] >= n_experts:
                continue
            tokens[block, layer] += 1
            table = pairs[block, layer]
            for rank in range(top_k_L[layer]):
                one = ids[rank]
                table[one, one] += 1
                for other in range(rank + 1, top_k_L[layer]):
                    table[min(one, ids[other]), max(one, ids[other])] += 1
    return pairs, tokens


@njit(cache=True, nogil=True)
def count_nodes(experts_TLR, batch_T, home_T, top_k_L, nodes_LEV, n_replicas_LE, n_batches, n_nodes):  # type: ignore[no-untyped-def]
    """How many nodes a token's experts lie on, and how much leaves the token's own node.

    Of several replicas the one on the token's own node serves, else one after the other by the token's place.

    Args:
        experts_TLR: ids; what is no expert is left out.
        batch_T: batch of each token; tokens of a negative batch are left out.
        home_T: the node that holds the token.
        top_k_L: selected ranks.
        nodes_LEV: nodes that hold a replica.
        n_replicas_LE: how many such nodes.
        n_batches: how many batches.
        n_nodes: how many nodes.

    Returns:
        (B, L, 4) int64: tokens, distinct nodes, pairs that leave the node, distinct nodes other than the own.
    """
    n_layers = len(top_k_L)
    n_experts = nodes_LEV.shape[1]
    found = np.zeros((n_batches, n_layers, 4), np.int64)
    seen = np.zeros(n_nodes, np.bool_)
    for token in range(len(experts_TLR)):
        batch = batch_T[token]
        if batch < 0:
            continue
        home = home_T[token]
        for layer in range(n_layers):
            ids = experts_TLR[token, layer]
            if ids[0] >= n_experts:
                continue
            seen[:] = False
            row = found[batch, layer]
            row[0] += 1
            for rank in range(top_k_L[layer]):
                expert = ids[rank]
                count = n_replicas_LE[layer, expert]
                node = nodes_LEV[layer, expert, token % count]
                for replica in range(count):
                    if nodes_LEV[layer, expert, replica] == home:
                        node = home
                if node != home:
                    row[2] += 1
                if not seen[node]:
                    seen[node] = True
                    row[1] += 1
                    if node != home:
                        row[3] += 1
    return found
