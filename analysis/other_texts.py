"""Reading a layer in other texts: a null that keeps what tokens of one text have in common.

Legend: T token.
"""

from __future__ import annotations

import numpy as np

__all__ = ["partners"]


def partners(prompt_T: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """For each token a token of another text: texts are dealt to texts at random, and read from a random place on.

    Tokens of one text keep the tokens of one other text as partners, so that texts differ as much as they did; which
    text, and which place in it, is chance. A longer partner is read in part, a shorter one again and again.

    Args:
        prompt_T: text of each token.
        rng: of the deal and the places.

    Returns:
        (T) int64 · row of the partner.
    """
    line_up = np.argsort(prompt_T, kind="stable")
    _, starts, lengths = np.unique(prompt_T[line_up], return_index=True, return_counts=True)
    dealt = rng.permutation(len(starts))
    offset = (rng.random(len(starts)) * lengths[dealt]).astype(np.int64)
    within = np.arange(len(prompt_T)) - np.repeat(starts, lengths)
    place = (within + np.repeat(offset, lengths)) % np.repeat(lengths[dealt], lengths)
    found = np.empty(len(prompt_T), dtype=np.int64)
    found[line_up] = line_up[np.repeat(starts[dealt], lengths) + place]
    return found
