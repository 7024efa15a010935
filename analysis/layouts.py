"""Places in two dimensions for rows of numbers, dense or sparse."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np

__all__ = ["Matrix", "principal_components", "umap_layout"]

Matrix = Any
"""Rows of numbers: a numpy array, or a sparse array of scipy."""

EXACT_NEIGHBORS = 4096
"""From so many items on, UMAP looks for neighbors approximately, and knows how to in a sparse matrix."""

MOST_PRODUCTS = 1000
"""Most items, or features, whose products with each other are all taken for principal components."""

# UMAP and numba share a process-wide pool of threads that must not be entered twice, and its first import compiles.
_UMAP = threading.Lock()


def umap_layout(values_IF: Matrix, *, n_neighbors: int, min_dist: float, seed: int) -> np.ndarray:
    """UMAP in two dimensions by Euclidean distances, one call at a time in a process.

    Returns:
        (item, 2) · no unit · any.
    """
    if not isinstance(values_IF, np.ndarray) and values_IF.shape[0] < EXACT_NEIGHBORS:
        values_IF = values_IF.toarray()
    with _UMAP, warnings.catch_warnings():
        # UMAP warns of its own fallbacks (few items, no spectral start), which are fine here.
        warnings.simplefilter("ignore")
        # Compiles for tens of seconds at first.
        import umap

        model = umap.UMAP(n_neighbors=n_neighbors, min_dist=min_dist, random_state=seed, n_jobs=1)
        points: np.ndarray = model.fit_transform(values_IF.astype(np.float32))
    return points.astype(float)


def principal_components(values_IF: Matrix, *, seed: int = 0) -> tuple[np.ndarray, float]:
    """The first two principal components, and the share of variance that they hold.

    Returns:
        (item, 2) · the unit of the values · any; the share is NaN where nothing varies.
    """
    points = np.zeros((values_IF.shape[0], 2))
    if len(points) < 2:
        return points, float("nan")
    if min(values_IF.shape) > MOST_PRODUCTS:
        found, strength, total = _of_many(values_IF, seed=seed)
    else:
        found, strength, total = _of_few(values_IF)
    # The sign of a component is arbitrary; its largest entry is made positive, so that a map comes out the same.
    largest = found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])]
    points[:, : found.shape[1]] = found * np.where(largest < 0, -1.0, 1.0)
    return points, float(strength.sum() / total) if total > 0 else float("nan")


def _of_few(values_IF: Matrix) -> tuple[np.ndarray, np.ndarray, float]:
    # Slow to import, and not every view projects.
    from scipy.linalg import eigh

    n_items, n_features = values_IF.shape
    wide = n_features > n_items
    if isinstance(values_IF, np.ndarray):
        centered = values_IF - values_IF.mean(axis=0)
        products = centered @ centered.T if wide else centered.T @ centered
    else:
        # A sparse matrix loses its zeros when it is centered; its products can be centered afterwards.
        products = (values_IF @ values_IF.T if wide else values_IF.T @ values_IF).toarray().astype(float)
        mean_F = np.asarray(values_IF.mean(axis=0), dtype=float).ravel()
        if wide:
            products += products.mean() - products.mean(axis=0) - products.mean(axis=1)[:, None]
        else:
            products -= n_items * np.outer(mean_F, mean_F)
    strength, vectors = eigh(products, subset_by_index=(max(0, len(products) - 2), len(products) - 1))
    strength, vectors = np.maximum(strength[::-1], 0.0), vectors[:, ::-1]
    total = float(np.trace(products))
    if wide:
        return vectors * np.sqrt(strength), strength, total
    if isinstance(values_IF, np.ndarray):
        return centered @ vectors, strength, total
    return values_IF @ vectors - mean_F @ vectors, strength, total


def _of_many(values_IF: Matrix, *, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    from sklearn.decomposition import PCA

    model = PCA(n_components=2, svd_solver="arpack", random_state=seed)
    found = model.fit_transform(values_IF)
    # The variance of the other components is in no attribute of the model.
    squares = values_IF**2 if isinstance(values_IF, np.ndarray) else values_IF.multiply(values_IF)
    mean_F = np.asarray(values_IF.mean(axis=0), dtype=float).ravel()
    total = float(squares.sum() - len(found) * (mean_F**2).sum())
    return found, model.explained_variance_ * (len(found) - 1), total
