"""Which tokens of a chunk have one expert, and at which rank: what every question about a single expert begins with."""

from __future__ import annotations

import numpy as np

from routing.chunks import Chunk

__all__ = ["NOT_ROUTED", "rank_of_expert"]

NOT_ROUTED = -2
"""Stands for a token that the layer did not route."""


def rank_of_expert(chunk: Chunk, *, number: int, expert: int, ranks: slice) -> np.ndarray:
    """The rank at which each token of a chunk has an expert, in one pass over the ids.

    Args:
        chunk: with its experts.
        number: of the layer.
        expert: its number in that layer.
        ranks: those that count.

    Returns:
        (T) rank · within `ranks`; -1 where the token has it at none of them, `NOT_ROUTED` where the layer passed it by.
    """
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.expert_kernels import rank_of_expert as loop
    from analysis.kernels import frozen

    assert chunk.experts is not None
    found: np.ndarray = loop(
        frozen(chunk.experts), number, expert, ranks.start, min(ranks.stop, chunk.experts.shape[2])
    )
    return found
