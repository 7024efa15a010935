"""Compiled loops over permutations of group labels.

Legend: B permutation, P prompt, G group, E expert.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["count_exceedances", "permuted_information"]


@njit(cache=True, nogil=True)
def count_exceedances(values_PE, labels_BP, n_G, center_E, scale_GE, observed_GE, counted_GE, bins):  # type: ignore[no-untyped-def]
    """How often a permuted |z| reaches the observed one, and how all permuted |z| are spread.

    z = (mean of the group − center) × scale. The sums live in one small table, so that nothing of size B is held.

    Args:
        values_PE: what is averaged.
        labels_BP: permuted group of every prompt.
        n_G: prompts of each group.
        center_E: what is subtracted from a mean.
        scale_GE: what that is multiplied with to become z.
        observed_GE: |z| as observed, less a tolerance for rounding.
        counted_GE: cells that enter the spread.
        bins: (number of bins, bins per unit of z); what lies beyond enters the last.

    Returns:
        (G, E) int64 and (bins,) int64.
    """
    n_bins, per_unit = bins
    n_groups, n_experts = observed_GE.shape
    exceeds_GE = np.zeros((n_groups, n_experts), np.int64)
    spread = np.zeros(n_bins, np.int64)
    sums_GE = np.zeros((n_groups, n_experts))
    for b in range(len(labels_BP)):
        sums_GE[:] = 0.0
        for prompt in range(len(values_PE)):
            row = sums_GE[labels_BP[b, prompt]]
            for expert in range(n_experts):
                row[expert] += values_PE[prompt, expert]
        for group in range(n_groups):
            if n_G[group] == 0:
                continue
            for expert in range(n_experts):
                z = abs((sums_GE[group, expert] / n_G[group] - center_E[expert]) * scale_GE[group, expert])
                exceeds_GE[group, expert] += z >= observed_GE[group, expert]
                if counted_GE[group, expert]:
                    spread[min(np.int64(z * per_unit), n_bins - 1)] += 1
    return exceeds_GE, spread


@njit(cache=True, nogil=True)
def permuted_information(shares_PE, labels_BP, n_G):  # type: ignore[no-untyped-def]
    """Information between group and expert under each permutation, in nats.

    Σ_g (n_g / P) Σ_e s_ge ln(s_ge / s_e), s_ge the mean share of the group's prompts, s_e of all.

    Args:
        shares_PE: a prompt's assignments by expert, each row summing to 1.
        labels_BP: permuted group of every prompt.
        n_G: prompts of each group.

    Returns:
        (B,) float64.
    """
    n_prompts, n_experts = shares_PE.shape
    n_groups = len(n_G)
    negative_entropy = 0.0
    for expert in range(n_experts):
        share = 0.0
        for prompt in range(n_prompts):
            share += shares_PE[prompt, expert]
        share /= n_prompts
        if share > 0:
            negative_entropy += share * np.log(share)
    found = np.zeros(len(labels_BP))
    sums_GE = np.zeros((n_groups, n_experts))
    for b in range(len(labels_BP)):
        sums_GE[:] = 0.0
        for prompt in range(n_prompts):
            row = sums_GE[labels_BP[b, prompt]]
            for expert in range(n_experts):
                row[expert] += shares_PE[prompt, expert]
        total = 0.0
        for group in range(n_groups):
            for expert in range(n_experts):
                if sums_GE[group, expert] > 0:
                    total += sums_GE[group, expert] * np.log(sums_GE[group, expert] / n_G[group])
        found[b] = max(0.0, total / n_prompts - negative_entropy)
    return found
