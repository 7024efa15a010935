"""95 % intervals from redrawn estimates.

Legend: R draw.
"""

from __future__ import annotations

import numpy as np

__all__ = ["interval_95"]


def interval_95(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5th and 97.5th percentile over draws (the first axis), of those that are numbers; NaN where none is."""
    low, high = np.full((2, *drawn.shape[1:]), np.nan)
    some = np.isfinite(drawn).any(axis=0) if len(drawn) else np.zeros(drawn.shape[1:], bool)
    if some.any():
        low[some], high[some] = np.nanquantile(drawn[:, some], [0.025, 0.975], axis=0)
    return low, high
