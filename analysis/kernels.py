"""Compiled loops over one chunk of a trace. Each returns integers that add up over chunks.

Legend: T token, L layer, R stored rank, E expert, S slot (expert or "absent"), G group.

Compiled on first call and cached on disk beside this file (or in the user's cache folder where that is read-
only). Arguments are frozen, contiguous views, so that a mapped file and an array in memory share one
compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit

__all__ = ["add_weights", "count_bytes", "count_bytes_of", "count_common", "count_quads_of", "count_words", "frozen"]


def frozen(array: np.ndarray) -> np.ndarray:
    """The array as a contiguous view that cannot be written into; copied only where it is not contiguous."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _compiled(count: Callable[..., Any], *, name: str) -> Callable[..., Any]:
    """A loop compiled under a name of its own.

    The cache on disk keeps the versions of one name in one list, and two processes that add to it at once can end up
    with each other's machine code. A name for each version leaves nothing to mix up.
    """
    count.__qualname__ = name
    compiled: Callable[..., Any] = njit(cache=True, nogil=True)(count)
    return compiled


@njit(cache=True, nogil=True)
def count_bytes(experts_TLR, key_T, top_k_L, first_layer, n_groups):  # type: ignore[no-untyped-def]
    """Assignments per group, layer and slot, and tokens per group, of one-byte ids.

    Every byte has its slot, so that the inner loop asks nothing; the last slot holds what was absent.

    Returns:
        (G, L, 256) uint32 and (G,) uint32.
    """
    n_layers = len(top_k_L)
    counts_GLS = np.zeros((n_groups, n_layers, 256), np.uint32)
    tokens_G = np.zeros(n_groups, np.uint32)
    for token in range(len(experts_TLR)):
        group = key_T[token]
        if group < 0:
            continue
        tokens_G[group] += 1
        for layer in range(n_layers):
            ids = experts_TLR[token, first_layer + layer]
            slots = counts_GLS[group, layer]
            for rank in range(top_k_L[layer]):
                slots[ids[rank]] += 1
    return counts_GLS, tokens_G


@cache
def count_bytes_of(top_k: int) -> Callable[..., Any]:
    """`count_bytes` for layers that all select as many experts.

    Counting is bound by one read-modify-write a cycle. With the number of ranks known, the compiler writes the inner
    loop out, and a third of the time goes.
    """

    def count(experts_TLR, key_T, top_k_L, first_layer, n_groups):  # type: ignore[no-untyped-def]
        n_layers = len(top_k_L)
        counts_GLS = np.zeros((n_groups, n_layers, 256), np.uint32)
        tokens_G = np.zeros(n_groups, np.uint32)
        for token in range(len(experts_TLR)):
            group = key_T[token]
            if group < 0:
                continue
            tokens_G[group] += 1
            for layer in range(n_layers):
                ids = experts_TLR[token, first_layer + layer]
                slots = counts_GLS[group, layer]
                for rank in range(top_k):
                    slots[ids[rank]] += 1
        return counts_GLS, tokens_G

    return _compiled(count, name=f"count_bytes_of_{top_k}")


@cache
def count_quads_of(n_quads: int) -> Callable[..., Any]:
    """As `count_bytes_of` where ranks come in fours: ids are read four at a time, Q being a quarter of R.

    The lowest byte of a quad must be its first rank, so the machine must be little-endian.
    """

    def count(quads_TLQ, key_T, top_k_L, first_layer, n_groups):  # type: ignore[no-untyped-def]
        n_layers = len(top_k_L)
        counts_GLS = np.zeros((n_groups, n_layers, 256), np.uint32)
        tokens_G = np.zeros(n_groups, np.uint32)
        byte, one, two, three = np.uint32(255), np.uint32(8), np.uint32(16), np.uint32(24)
        for token in range(len(quads_TLQ)):
            group = key_T[token]
            if group < 0:
                continue
            tokens_G[group] += 1
            for layer in range(n_layers):
                quads = quads_TLQ[token, first_layer + layer]
                slots = counts_GLS[group, layer]
                for place in range(n_quads):
                    quad = quads[place]
                    slots[quad & byte] += 1
                    slots[(quad >> one) & byte] += 1
                    slots[(quad >> two) & byte] += 1
                    slots[quad >> three] += 1
        return counts_GLS, tokens_G

    return _compiled(count, name=f"count_quads_of_{n_quads}")


@njit(cache=True, nogil=True)
def count_words(experts_TLR, key_T, top_k_L, first_layer, n_groups, n_experts):  # type: ignore[no-untyped-def]
    """As `count_bytes`, of wider ids: the slot after the last expert holds what was absent.

    Returns:
        (G, L, E + 1) uint32 and (G,) uint32.
    """
    n_layers = len(top_k_L)
    counts_GLS = np.zeros((n_groups, n_layers, n_experts + 1), np.uint32)
    tokens_G = np.zeros(n_groups, np.uint32)
    for token in range(len(experts_TLR)):
        group = key_T[token]
        if group < 0:
            continue
        tokens_G[group] += 1
        for layer in range(n_layers):
            ids = experts_TLR[token, first_layer + layer]
            slots = counts_GLS[group, layer]
            for rank in range(top_k_L[layer]):
                slots[min(ids[rank], n_experts)] += 1
    return counts_GLS, tokens_G


@njit(cache=True, nogil=True)
def count_common(experts_TLR, others_TLR, top_k_L, n_experts):  # type: ignore[no-untyped-def]
    """Selected experts that two traces of the same tokens share, and tokens that both routed, in each layer.

    Returns:
        (L,) int64 and (L,) int64.
    """
    n_tokens, n_layers, _ = experts_TLR.shape
    common_L = np.zeros(n_layers, np.int64)
    routed_L = np.zeros(n_layers, np.int64)
    for token in range(n_tokens):
        for layer in range(n_layers):
            ids = experts_TLR[token, layer]
            others = others_TLR[token, layer]
            if ids[0] >= n_experts or others[0] >= n_experts:
                continue
            routed_L[layer] += 1
            for rank in range(top_k_L[layer]):
                for other in range(top_k_L[layer]):
                    common_L[layer] += ids[rank] == others[other]
    return common_L, routed_L


@njit(cache=True, nogil=True)
def add_weights(experts_TLR, codes_TLK, fixed_C, key_T, top_k_L, n_groups, n_experts):  # type: ignore[no-untyped-def]
    """Sums of whole numbers that stand for the applied weights, and tokens routed, per group and layer.

    Returns:
        (G, L, E) int64 and (G, L) int64.
    """
    n_tokens, n_layers, _ = experts_TLR.shape
    sums_GLE = np.zeros((n_groups, n_layers, n_experts), np.int64)
    tokens_GL = np.zeros((n_groups, n_layers), np.int64)
    for token in range(n_tokens):
        group = key_T[token]
        if group < 0:
            continue
        for layer in range(n_layers):
            if experts_TLR[token, layer, 0] >= n_experts:
                continue
            tokens_GL[group, layer] += 1
            for rank in range(top_k_L[layer]):
                expert = experts_TLR[token, layer, rank]
                sums_GLE[group, layer, expert] += fixed_C[codes_TLK[token, layer, rank]]
    return sums_GLE, tokens_GL
