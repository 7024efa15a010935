"""Intervals as Plotly draws them: bars to both sides of a dot."""

from __future__ import annotations

import numpy as np

__all__ = ["interval_bars"]


def interval_bars(
    value: np.ndarray, low: np.ndarray, high: np.ndarray, *, color: str, thickness: float = 1.5
) -> dict[str, object]:
    """Error bars from `low` to `high` without caps, none where the interval is unknown."""
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(np.maximum(high - value, 0)),
        "arrayminus": np.nan_to_num(np.maximum(value - low, 0)),
        "color": color,
        "thickness": thickness,
        "width": 0,
    }
