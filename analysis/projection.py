"""Maps: items that are routed alike lie near each other, as far as two dimensions allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.layouts import Matrix, principal_components, umap_layout
from analysis.quality import MapQuality, map_quality
from analysis.signatures import complete_items
from routing.errors import SelectionError

__all__ = ["MapMethod", "Projection", "laid_out", "project"]

MapMethod = Literal["umap", "pca"]

FEWEST_FOR_UMAP = 10


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
    values, kept = complete_items(signatures)
    notes = []
    if n_unknown := signatures.sizes["item"] - len(kept):
        notes.append(f"{n_unknown} items without any number are not on the map.")
    if len(kept) > most_items:
        sampled = _sampled(signatures.isel(item=kept), most_items, seed=seed)
        notes.append(f"The map shows a random sample of {most_items:,} of {len(kept):,} items.")
        values, kept = values[sampled], kept[sampled]
    items = signatures.isel(item=kept)
    columns = {str(name): coord.to_numpy() for name, coord in items.coords.items() if coord.dims == ("item",)}
    return laid_out(
        values,
        pd.DataFrame({"item": np.arange(len(kept))} | columns),
        method=method,
        n_neighbors=n_neighbors,
        min_dist=min_dist,
        seed=seed,
        options={"most_items": most_items},
        note=" ".join(notes),
    )


def laid_out(
    values_IF: Matrix,
    items: pd.DataFrame,
    *,
    method: MapMethod,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    note: str = "",
) -> Projection:
    """A map of all these items by Euclidean distances, dense or sparse.

    Args:
        values_IF: (item, feature), a numpy array or a sparse array of scipy, without gaps.
        items: what names the items, one row each.
        method: "umap", or "pca" for the two principal components.
        n_neighbors: how many neighbors UMAP tries to keep; also the size of neighborhoods in `quality`.
        min_dist: how close UMAP may put points.
        seed: of UMAP, and of the quality.
        options: what else decided which items there are.
        note: what a reader must know already.

    Returns:
        (item) · Projection of positions without unit · any.

    Raises:
        SelectionError: the method is unknown.
    """
    if method not in ("umap", "pca"):
        msg = f"A map is made by umap or pca, not by {method!r}. Correct the method."
        raise SelectionError(msg)
    n_items = values_IF.shape[0]
    notes = [note] if note else []
    if method == "umap" and n_items < FEWEST_FOR_UMAP:
        notes.append(f"{n_items} items are too few for UMAP, so these are principal components.")
        method = "pca"
    made_with: dict[str, Any] = dict(options or {}) | {"seed": seed}
    if method == "umap":
        n_near = min(n_neighbors, n_items - 1)
        made_with |= {"n_neighbors": n_near, "min_dist": min_dist}
        points = umap_layout(values_IF, n_neighbors=n_near, min_dist=min_dist, seed=seed)
    else:
        points, explained = principal_components(values_IF, seed=seed)
        made_with |= {"explained_share": explained}
    places = pd.DataFrame({"x": points[:, 0], "y": points[:, 1]})
    return Projection(
        points=pd.concat([items[["item"]], places, items.drop(columns="item")], axis=1),
        method=method,
        options=made_with,
        quality=map_quality(values_IF, points, n_neighbors=n_neighbors, seed=seed),
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
