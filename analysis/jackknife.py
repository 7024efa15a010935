"""Standard errors from leaving out blocks of prompts, for statistics too large to keep prompt by prompt.

Legend: P prompt, B block.
"""

from __future__ import annotations

import numpy as np

from analysis.rates import decided_by_task
from routing.trace import RoutingTrace

__all__ = ["blocks_of_prompts", "jackknife_spread", "two_sided_p"]


def blocks_of_prompts(trace: RoutingTrace, *, n_blocks: int, seed: int) -> tuple[np.ndarray, int]:
    """(P) block of each prompt, dealt at random so that blocks are equally large, and how many blocks there are."""
    # Where the router decided once a task, its prompts are one observation and stay together.
    by_task = decided_by_task(trace)
    n_units = len(trace.tasks) if by_task else trace.n_prompts
    n_blocks = max(1, min(n_blocks, n_units))
    dealt = np.random.default_rng(seed).permutation(n_units) % n_blocks
    block_P = dealt[trace.task_of_prompt] if by_task else dealt
    return block_P.astype(np.int32), n_blocks


def jackknife_spread(left_out_B: np.ndarray) -> np.ndarray:
    """Standard error of an estimate, from the estimates with one block (first axis) left out each.

    References:
        Tukey 1958; Efron & Stein 1981 (it errs on the large side).
    """
    n_blocks = len(left_out_B)
    if n_blocks < 2:
        return np.full(left_out_B.shape[1:], np.nan)
    deviations = left_out_B - left_out_B.mean(axis=0)
    found: np.ndarray = np.sqrt((n_blocks - 1) / n_blocks * (deviations**2).sum(axis=0))
    return found


def two_sided_p(z: np.ndarray, *, n_blocks: int) -> np.ndarray:
    """Chance of a t of one degree less than there are blocks to be as far from 0."""
    # Slow to import, and not every view needs it.
    from scipy.stats import t

    found: np.ndarray = 2 * t.sf(np.abs(z), max(1, n_blocks - 1))
    return found
