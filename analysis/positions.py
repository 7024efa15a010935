"""Bins of position: by themselves at the beginning, by octave further on."""

from __future__ import annotations

import numpy as np

from analysis.scan import require_tokens
from routing.trace import RoutingTrace

__all__ = ["bin_names", "bin_of_position", "n_position_bins"]


def bin_of_position(position: np.ndarray) -> np.ndarray:
    """0 for position 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7, and so on."""
    found: np.ndarray = np.frexp(np.maximum(position, 0).astype(np.float64))[1].astype(np.int64)
    return found


def n_position_bins(trace: RoutingTrace) -> int:
    """How many bins the trace's tokens fall into.

    Raises:
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a look at positions")
    last = max((int(chunk.position.max(initial=0)) for chunk in trace.chunks(fields=())), default=-1)
    return 0 if last < 0 else int(bin_of_position(np.array([last]))[0]) + 1


def bin_names(n_bins: int) -> list[str]:
    """Names of the bins: 0, 1, 2–3, 4–7, and so on."""
    return [str(number) if number < 2 else f"{2 ** (number - 1)}–{2**number - 1}" for number in range(n_bins)]
