"""What chance would do: permuted labels, p-values from them, and the false-discovery rate over many.

Legend: B permutation, P prompt.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import numpy as np

__all__ = ["Z_BINS", "Dealer", "PooledNull", "label_permutations", "p_value", "q_values"]

Z_BINS = (1 << 16, 1024)
"""Bins of |z|, and how many a unit of z has: up to 64 standard deviations, far beyond what a null reaches."""

ENOUGH = 10
"""Exceedances from which on a cell's own count is trusted alone."""

BATCH_CELLS = 1 << 22
KEPT_CELLS = 1 << 25


def label_permutations(labels: np.ndarray, *, n_permutations: int, seed: int) -> Iterator[np.ndarray]:
    """Permuted labels, (B, P) int32, in batches that fit in memory."""
    rng = np.random.default_rng(seed)
    step = max(1, BATCH_CELLS // max(1, len(labels)))
    for first in range(0, n_permutations, step):
        n_rows = min(step, n_permutations - first)
        yield rng.permuted(np.tile(labels.astype(np.int32), (n_rows, 1)), axis=1)


class Dealer:
    """Permuted labels, made once for all layers that routed the same prompts.

    Args:
        n_permutations: how many.
        seed: of the permutations.
    """

    def __init__(self, *, n_permutations: int, seed: int) -> None:
        self._n_permutations, self._seed = n_permutations, seed
        self._made: dict[bytes, list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def deal(self, labels: np.ndarray) -> Iterable[np.ndarray]:
        """`label_permutations` of these labels."""
        made = label_permutations(labels, n_permutations=self._n_permutations, seed=self._seed)
        if len(labels) * self._n_permutations > KEPT_CELLS:
            return made
        with self._lock:
            key = labels.tobytes()
            if key not in self._made:
                self._made[key] = list(made)
            return self._made[key]


def p_value(n_exceeding: np.ndarray | int, *, n_permutations: int) -> np.ndarray:
    """(1 + permutations that reach the observed) / (1 + permutations): the observed labelling is one of them.

    References:
        Phipson & Smyth 2010, "Permutation p-values should never be zero".
    """
    return (1 + np.asarray(n_exceeding)) / (1 + n_permutations)


class PooledNull:
    """|z| of all cells under all permutations, for tails that a cell's own permutations are too few to resolve.

    A thousand permutations cannot tell p = 0.0001 from 0.001, and with a thousand cells the false-discovery rate
    needs to. Standardized cells share their null closely enough for the far tail; where a cell's own permutations
    exceed the observed value often enough, they alone decide.
    """

    def __init__(self) -> None:
        self._spread = np.zeros(Z_BINS[0], dtype=np.int64)

    def add(self, spread: np.ndarray) -> None:
        """Take in what one part of the cells gave."""
        self._spread += spread

    def p_values(self, z: np.ndarray, *, n_exceeding: np.ndarray, n_permutations: int) -> np.ndarray:
        """Two-sided p-values of observed z; NaN where z is."""
        own = p_value(n_exceeding, n_permutations=n_permutations)
        at_least = self._spread[::-1].cumsum()[::-1]
        place = np.minimum(np.nan_to_num(np.abs(z)) * Z_BINS[1], Z_BINS[0] - 1).astype(np.int64)
        pooled = (1 + at_least[place]) / (1 + int(at_least[0]))
        return np.where(np.isnan(z), np.nan, np.where(n_exceeding >= ENOUGH, own, np.minimum(own, pooled)))


def q_values(p_values: np.ndarray) -> np.ndarray:
    """Smallest false-discovery rate at which each p-value would be called; NaN where it is.

    References:
        Benjamini & Hochberg 1995, "Controlling the false discovery rate".
    """
    flat = p_values.ravel()
    there = np.flatnonzero(np.isfinite(flat))
    found = np.full(flat.shape, np.nan)
    if len(there):
        order = there[np.argsort(flat[there], kind="stable")]
        stepped = flat[order] * len(order) / np.arange(1, len(order) + 1)
        found[order] = np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1])
    return found.reshape(p_values.shape)
