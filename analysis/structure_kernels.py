"""Compiled loops over one chunk: which experts and nodes come together in a token, and what follows what.

Legend: T token, L layer, R stored rank, K selected rank, E expert, B block of prompts, N node, V replica, Q pair of
layers, S sequence (prompt and stack), P prompt.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["count_joint", "count_nodes", "count_pairs", "count_repeats", "count_seconds", "pair_chances"]


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


@njit(cache=True, nogil=True)
def count_joint(experts_TLR, block_T, pair_Q2, ranks_L, n_blocks, n_experts, partner_T):  # type: ignore[no-untyped-def]
    """How often an expert of one layer goes with an expert of another, in the same token or in tokens apart.

    Args:
        experts_TLR: ids.
        block_T: block of each token; tokens of a negative block are left out.
        pair_Q2: pairs of layers.
        ranks_L: how many ranks of each layer are paired, from the first.
        n_blocks: how many blocks.
        n_experts: most experts of a layer.
        partner_T: the token in which the second layer is read: the same, or one of another text.

    Returns:
        (B, Q, E, E) uint32.
    """
    found = np.zeros((n_blocks, len(pair_Q2), n_experts, n_experts), np.uint32)
    # One pair of layers after the other: its table stays in the fastest memory.
    for number in range(len(pair_Q2)):
        one, other = pair_Q2[number]
        for token in range(len(experts_TLR)):
            block = block_T[token]
            if block < 0:
                continue
            later = partner_T[token]
            for rank in range(ranks_L[one]):
                first = experts_TLR[token, one, rank]
                if first >= n_experts:
                    continue
                for second_rank in range(ranks_L[other]):
                    second = experts_TLR[later, other, second_rank]
                    if second < n_experts:
                        found[block, number, first, second] += 1
    return found


@njit(cache=True, nogil=True)
def count_repeats(experts_TLR, key_T, prompt_T, position_T, top_k_L, last_S, ids_SLK, found_PL3, n_experts):  # type: ignore[no-untyped-def]
    """Consecutive tokens of a prompt: pairs, pairs with the same first expert, pairs that share any.

    Args:
        experts_TLR: ids.
        key_T: prompt and stack of each token, as one number.
        prompt_T: prompt of each token.
        position_T: place in the prompt.
        top_k_L: selected ranks.
        last_S: the last position seen of each key; it moves on.
        ids_SLK: what was selected there; it moves on.
        found_PL3: the counts; they grow.
        n_experts: most experts of a layer.
    """
    n_layers = len(top_k_L)
    for token in range(len(experts_TLR)):
        key = key_T[token]
        follows = last_S[key] >= 0 and position_T[token] == last_S[key] + 1
        for layer in range(n_layers):
            top_k = top_k_L[layer]
            if follows and experts_TLR[token, layer, 0] < n_experts and ids_SLK[key, layer, 0] < n_experts:
                counts = found_PL3[prompt_T[token], layer]
                counts[0] += 1
                counts[1] += experts_TLR[token, layer, 0] == ids_SLK[key, layer, 0]
                shared = False
                for rank in range(top_k):
                    for other in range(top_k):
                        shared |= experts_TLR[token, layer, rank] == ids_SLK[key, layer, other]
                counts[2] += shared
            for rank in range(top_k):
                ids_SLK[key, layer, rank] = experts_TLR[token, layer, rank]
        last_S[key] = position_T[token]


@njit(cache=True, nogil=True)
def pair_chances(rate_E, top_k):  # type: ignore[no-untyped-def]
    """Chance that two experts are both among k different ones, drawn with no preference but how often each is chosen.

    Of all ways to draw k different experts with these rates, the one of largest entropy: a set S has a chance
    proportional to the product of weights over S; the weights are fitted to the rates.

    Args:
        rate_E: chance of each expert to be chosen, all above 0 and below 1, summing to k.
        top_k: how many are drawn.

    Returns:
        (E, E) float64; the diagonal holds the fitted rates.
    """
    n_experts = len(rate_E)
    weight_E = rate_E / (1.0 - rate_E)
    before = np.zeros((n_experts + 1, top_k + 1))
    after = np.zeros((n_experts + 1, top_k + 1))
    fitted_E = np.zeros(n_experts)
    for _ in range(1000):
        _symmetric(weight_E, -1, top_k, before, after)
        whole = before[n_experts, top_k]
        worst = 0.0
        for expert in range(n_experts):
            without = 0.0
            for degree in range(top_k):
                without += before[expert, degree] * after[expert + 1, top_k - 1 - degree]
            fitted_E[expert] = weight_E[expert] * without / whole
            worst = max(worst, abs(fitted_E[expert] - rate_E[expert]))
        if worst < 1e-10:
            break
        for expert in range(n_experts):
            weight_E[expert] *= (rate_E[expert] / fitted_E[expert]) * (1 - fitted_E[expert]) / (1 - rate_E[expert])
    found = np.zeros((n_experts, n_experts))
    for expert in range(n_experts):
        found[expert, expert] = fitted_E[expert]
        if top_k < 2:
            continue
        _symmetric(weight_E, expert, top_k, before, after)
        for other in range(n_experts):
            if other == expert:
                continue
            without = 0.0
            for degree in range(top_k - 1):
                without += before[other, degree] * after[other + 1, top_k - 2 - degree]
            found[expert, other] = weight_E[expert] * weight_E[other] * without / whole
    return found


@njit(cache=True, nogil=True)
def _symmetric(weight_E, left_out, top_k, before, after):  # type: ignore[no-untyped-def]
    """Elementary symmetric sums of the weights before each expert, and from each on, one expert left out.

    Only sums of positive numbers, so that nothing cancels.
    """
    n_experts = len(weight_E)
    before[:] = 0.0
    after[:] = 0.0
    before[0, 0] = 1.0
    after[n_experts, 0] = 1.0
    for expert in range(n_experts):
        weight = 0.0 if expert == left_out else weight_E[expert]
        before[expert + 1, 0] = 1.0
        for degree in range(1, top_k + 1):
            before[expert + 1, degree] = before[expert, degree] + weight * before[expert, degree - 1]
    for expert in range(n_experts - 1, -1, -1):
        weight = 0.0 if expert == left_out else weight_E[expert]
        after[expert, 0] = 1.0
        for degree in range(1, top_k + 1):
            after[expert, degree] = after[expert + 1, degree] + weight * after[expert + 1, degree - 1]


@njit(cache=True, nogil=True)
def count_seconds(ranks_TR, prompt_T, n_experts):  # type: ignore[no-untyped-def]
    """How often each expert came behind each selected one, and sums over prompts of what the spread of that needs.

    Args:
        ranks_TR: selected experts, and behind them the one that came second.
        prompt_T: number of the prompt; those of a prompt stand together.
        n_experts: how many experts there are.

    Returns:
        (E, E) counts; (E, E) sums of their squares by prompt; (E, E) the same of a count times how often its selected
        expert came; (E) squares of that · float64.
    """
    n_tokens, n_selected = len(ranks_TR), ranks_TR.shape[1] - 1
    shape = (n_experts, n_experts)
    counts, squares, crossed, alone = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(n_experts)
    here_EE, here_E = np.zeros(shape, np.int64), np.zeros(n_experts, np.int64)
    first = 0
    while first < n_tokens:
        last = first
        while last < n_tokens and prompt_T[last] == prompt_T[first]:
            second = ranks_TR[last, n_selected]
            for rank in range(n_selected):
                here_EE[ranks_TR[last, rank], second] += 1
                here_E[ranks_TR[last, rank]] += 1
            last += 1
        # Each pair and expert is added where it is met first, and is 0 again from there on.
        for token in range(first, last):
            second = ranks_TR[token, n_selected]
            for rank in range(n_selected):
                expert = ranks_TR[token, rank]
                n_pair = here_EE[expert, second]
                if n_pair:
                    counts[expert, second] += n_pair
                    squares[expert, second] += n_pair**2
                    crossed[expert, second] += n_pair * here_E[expert]
                    here_EE[expert, second] = 0
        for token in range(first, last):
            for rank in range(n_selected):
                expert = ranks_TR[token, rank]
                alone[expert] += here_E[expert] ** 2
                here_E[expert] = 0
        first = last
    return counts, squares, crossed, alone
