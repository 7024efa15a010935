"""Maps: items that are routed alike lie near each other, as far as two dimensions allow."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.quality import MapQuality, map_quality
from analysis.signatures import complete_items
from routing.errors import SelectionError

__all__ = ["MapMethod", "Projection", "project"]

MapMethod = Literal["umap", "pca"]

FEWEST_FOR_UMAP = 10

# UMAP and numba share a process-wide pool of threads that must not be entered twice, and its first import compiles.
_UMAP = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """A map of items.

    Attributes:
        points: one row an item · item, x, y, and whatever names the items.
        method: what made it, which is not what was asked for where `note` says so.
        options: the parameters that it was made with.
        quality: how far it may be believed.
        note: what a reader must know, or an empty text.
    """

    points: pd.DataFrame
    method: MapMethod
    options: dict[str, Any]
    quality: MapQuality
    note: str

    @property
    def trustworthiness(self) -> float:
        """Whether neighbors on the map are neighbors in truth, 0 to 1."""
        return self.quality.trustworthiness


def project(
    signatures: xr.DataArray,
    *,
    method: MapMethod = "umap",
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    most_items: int = 4000,
    seed: int = 0,
) -> Projection:
    """A map of items by their signatures.

    Items without any number are not on the map. Beyond `most_items` a seeded sample is, with the same share of each
    task where items have one. Fewer than ten items are laid out by principal components, for UMAP's neighborhoods
    mean nothing then. Distances between far groups and sizes of groups on a UMAP mean nothing either.

    Args:
        signatures: (item, feature), as `analysis.signatures` gives them.
        method: "umap", or "pca" for the two principal components.
        n_neighbors: how many neighbors UMAP tries to keep; also the size of neighborhoods in `quality`.
        min_dist: how close UMAP may put points.
        most_items: size of the sample, announced in `note`.
        seed: of the sample and of UMAP.

    Returns:
        (item) · Projection of positions without unit · any.

    Raises:
        SelectionError: the method is unknown.

    References:
        McInnes, Healy & Melville 2018, "UMAP"; Venna & Kaski 2001 (trustworthiness, continuity).
    """
    if method not in ("umap", "pca"):
        msg = f"A map is made by umap or pca, not by {method!r}. Correct the method."
        raise SelectionError(msg)
    values, kept = complete_items(signatures)
    notes = []
    if n_unknown := signatures.sizes["item"] - len(kept):
        notes.append(f"{n_unknown} items without any number are not on the map.")
    if len(kept) > most_items:
        sampled = _sampled(signatures.isel(item=kept), most_items, seed=seed)
        notes.append(f"The map shows a random sample of {most_items:,} of {len(kept):,} items.")
        values, kept = values[sampled], kept[sampled]
    if method == "umap" and len(kept) < FEWEST_FOR_UMAP:
        notes.append(f"{len(kept)} items are too few for UMAP, so these are principal components.")
        method = "pca"
    options: dict[str, Any] = {"most_items": most_items, "seed": seed}
    if method == "umap":
        n_near = min(n_neighbors, len(kept) - 1)
        options |= {"n_neighbors": n_near, "min_dist": min_dist}
        points = _umap(values, n_neighbors=n_near, min_dist=min_dist, seed=seed)
    else:
        points, explained = _principal_components(values)
        options |= {"explained_share": explained}
    items = signatures.isel(item=kept)
    columns = {str(name): coord.to_numpy() for name, coord in items.coords.items() if coord.dims == ("item",)}
    frame = pd.DataFrame({"item": np.arange(len(kept)), "x": points[:, 0], "y": points[:, 1]} | columns)
    return Projection(
        points=frame,
        method=method,
        options=options,
        quality=map_quality(values, points, n_neighbors=n_neighbors, seed=seed),
        note=" ".join(notes),
    )


def _sampled(items: xr.DataArray, n_items: int, *, seed: int) -> np.ndarray:
    """Places of a sample in which every task keeps its share."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(items.sizes["item"])
    strata = items["task"].to_numpy() if "task" in items.coords else np.zeros(items.sizes["item"])
    codes = pd.factorize(strata)[0][shuffled]
    # The nth of each task's shuffled items, over the task's size: the smallest are an even draw from all tasks.
    nth = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    return np.sort(shuffled[np.argsort((nth + 0.5) / np.bincount(codes)[codes], kind="stable")[:n_items]])


def _umap(values: np.ndarray, *, n_neighbors: int, min_dist: float, seed: int) -> np.ndarray:
    with _UMAP, warnings.catch_warnings():
        # UMAP warns of its own fallbacks (few items, no spectral start), which are fine here.
        warnings.simplefilter("ignore")
        # Compiles for tens of seconds at first.
        import umap

        model = umap.UMAP(n_neighbors=n_neighbors, min_dist=min_dist, random_state=seed, n_jobs=1)
        points: np.ndarray = model.fit_transform(values.astype(np.float32))
    return points.astype(float)


def _principal_components(values: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components, and the share of variance that they hold."""
    points = np.zeros((len(values), 2))
    if len(values) < 2:
        return points, float("nan")
    centered = values - values.mean(axis=0)
    wide = centered.shape[1] > centered.shape[0]
    products = centered @ centered.T if wide else centered.T @ centered
    # Slow to import, and not every view projects.
    from scipy.linalg import eigh

    strength, vectors = eigh(products, subset_by_index=(max(0, len(products) - 2), len(products) - 1))
    strength, vectors = np.maximum(strength[::-1], 0.0), vectors[:, ::-1]
    found = vectors * np.sqrt(strength) if wide else centered @ vectors
    # The sign of a component is arbitrary; its largest entry is made positive, so that a map comes out the same.
    largest = found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])]
    points[:, : found.shape[1]] = found * np.where(largest < 0, -1.0, 1.0)
    total = float((centered**2).sum())
    return points, float(strength.sum() / total) if total > 0 else float("nan")
