"""Sums over prompts that were drawn again, for every layer and expert.

Legend: B bootstrap draw, P prompt, L layer, E expert.
"""

from __future__ import annotations

import threading

import numpy as np
from threadpoolctl import threadpool_limits

__all__ = ["EXACT_IN_SINGLE", "redrawn_sums"]

EXACT_IN_SINGLE = 2.0**24
"""Whole numbers below it are kept exactly by float32, which is multiplied twice as fast as float64."""

# The bound holds for the whole process: of two that overlap, the later to leave would put back the earlier one's.
_ALONE = threading.Lock()


def redrawn_sums(counts_PLE: np.ndarray, weights_BP: np.ndarray) -> np.ndarray:
    """What each draw of prompts adds up to: a product of matrices, exact where counts are whole.

    Args:
        counts_PLE: of each prompt; whole numbers, or amounts.
        weights_BP: how often each prompt was drawn.

    Returns:
        (draw, layer, expert) float64 · as the counts · 0 and up.
    """
    single_BP = weights_BP.astype(np.float32)
    drawn_BLE = np.empty((len(weights_BP), *counts_PLE.shape[1:]))
    # A layer at a time stays small: a copy of the whole table takes longer to make than to multiply. Several threads
    # would spin from one small product to the next: thrice the processor's time, for little of the clock's.
    with _ALONE, threadpool_limits(limits=1, user_api="blas"):
        for layer in range(counts_PLE.shape[1]):
            counts_PE = counts_PLE[:, layer]
            if np.issubdtype(counts_PE.dtype, np.integer):
                sums_BE = single_BP @ counts_PE.astype(np.float32)
                # All terms are whole and none is negative: below this bound no sum on the way was rounded, either.
                if sums_BE.max(initial=0.0) < EXACT_IN_SINGLE:
                    drawn_BLE[:, layer] = sums_BE
                    continue
            drawn_BLE[:, layer] = weights_BP @ counts_PE.astype(float)
    return drawn_BLE
