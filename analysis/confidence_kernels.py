"""Compiled loops over one chunk: how sure the routers were, and how that is spread.

Legend: T token, L layer, R stored rank, E expert, G group, H histogram bin, C code of a 16-bit float.

numba has no 16-bit floats, so they come as their codes and a table of what each code means.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["CENTER", "N_BINS", "bin_middles", "chunk_entropies", "chunk_margins", "sketch"]

# A histogram that adds up over chunks and has the same relative precision everywhere: 32 bins an octave (1.6 %),
# from 2^-22 (below the spacing of 16-bit scores) to 2^8; what is smaller is zero.
LOWEST, N_OCTAVES, PER_OCTAVE = -22, 30, 32
CENTER = N_OCTAVES * PER_OCTAVE
N_BINS = 2 * CENTER + 1


def bin_middles() -> np.ndarray:
    """(H,) the value in the middle of each bin, negative ones first."""
    bins = np.arange(CENTER)
    octave, place = np.divmod(bins, PER_OCTAVE)
    positive = (0.5 + (place + 0.5) / (2 * PER_OCTAVE)) * 2.0 ** (octave + LOWEST)
    return np.concatenate([-positive[::-1], [0.0], positive])


@njit(cache=True, nogil=True)
def sketch(values_TL, key_T, n_groups):  # type: ignore[no-untyped-def]
    """Histogram and sum of the finite values of each group and layer.

    Returns:
        (G, L, H) int64 and (G, L) float64.
    """
    n_layers = values_TL.shape[1]
    counts_GLH = np.zeros((n_groups, n_layers, N_BINS), np.int64)
    sums_GL = np.zeros((n_groups, n_layers))
    for token in range(len(values_TL)):
        group = key_T[token]
        if group < 0:
            continue
        for layer in range(n_layers):
            value = values_TL[token, layer]
            if not math.isfinite(value):
                continue
            mantissa, exponent = math.frexp(abs(value))
            place = 0
            if value != 0.0 and exponent >= LOWEST:
                place = (exponent - LOWEST) * PER_OCTAVE + int((mantissa - 0.5) * (2 * PER_OCTAVE)) + 1
                place = min(place, CENTER)
            counts_GLH[group, layer, CENTER + place if value >= 0 else CENTER - place] += 1
            sums_GL[group, layer] += value
    return counts_GLH, sums_GL


@njit(cache=True, nogil=True)
def chunk_margins(scores_TLR, value_C, top_k_L):  # type: ignore[no-untyped-def]
    """Least selected score − score of the first runner-up.

    Returns:
        (T, L) float32; NaN where either is missing.
    """
    n_tokens, n_layers, n_ranks = scores_TLR.shape
    margins_TL = np.full((n_tokens, n_layers), np.float32(np.nan))
    for token in range(n_tokens):
        for layer in range(n_layers):
            top_k = top_k_L[layer]
            if top_k >= n_ranks:
                continue
            # Ranks of the selected go by weight, so the least score may stand at any of them.
            least = value_C[scores_TLR[token, layer, 0]]
            for rank in range(1, top_k):
                score = value_C[scores_TLR[token, layer, rank]]
                # Written so that NaN stays.
                if not (score >= least):
                    least = score
            margins_TL[token, layer] = least - value_C[scores_TLR[token, layer, top_k]]
    return margins_TL


@njit(cache=True, nogil=True)
def chunk_entropies(logits_TLE, score_LC, log_score_LC, table_L, n_experts_L):  # type: ignore[no-untyped-def]
    """Entropy of the scores, as a share of ln(experts): (ln S − Σ s ln s / S) / ln E with S = Σ s.

    Args:
        logits_TLE: codes.
        score_LC: tables: score s of each code.
        log_score_LC: tables: s ln s of each code.
        table_L: which table a layer uses, −1 for none.
        n_experts_L: experts of each layer.

    Returns:
        (T, L) float32; NaN where a logit is missing or the layer has one expert or no table.
    """
    n_tokens, n_layers, _ = logits_TLE.shape
    entropies_TL = np.full((n_tokens, n_layers), np.float32(np.nan))
    for token in range(n_tokens):
        for layer in range(n_layers):
            n_experts = n_experts_L[layer]
            table = table_L[layer]
            if n_experts < 2 or table < 0:
                continue
            total = 0.0
            weighted = 0.0
            for expert in range(n_experts):
                code = logits_TLE[token, layer, expert]
                total += score_LC[table, code]
                weighted += log_score_LC[table, code]
            if not total > 0.0:
                continue
            entropies_TL[token, layer] = (math.log(total) - weighted / total) / math.log(n_experts)
    return entropies_TL
