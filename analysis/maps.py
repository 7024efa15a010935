"""Maps and clusters of a trace, kept beside it: they take seconds to make and are looked at often."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pandas as pd

from analysis.clustering import Clustering, clusters
from analysis.projection import MapMethod, Projection, project
from analysis.quality import MapQuality
from analysis.signatures import Of, Values, signatures
from routing.store.derived import load_derived, save_derived
from routing.trace import RoutingTrace

__all__ = ["routing_clusters", "routing_map", "stored_map"]


def routing_map(
    trace: RoutingTrace,
    *,
    of: Of = "expert",
    values: Values = "lift",
    method: MapMethod = "umap",
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    most_items: int = 4000,
    seed: int = 0,
) -> Projection:
    """The map of a trace's experts, prompts or tasks (`project` of `signatures`), made once and kept beside it.

    Returns:
        (item) · Projection of positions without unit · any.

    Raises:
        SelectionError: a name is none of those allowed.
        TraceError: prompts are asked of a trace of level "counts".
    """
    params = _params(
        of=of,
        values=values,
        method=method,
        n_neighbors=n_neighbors,
        min_dist=min_dist,
        most_items=most_items,
        seed=seed,
    )
    if (kept := _kept(trace, params)) is not None:
        return kept
    made = project(
        signatures(trace, of=of, values=values),
        method=method,
        n_neighbors=n_neighbors,
        min_dist=min_dist,
        most_items=most_items,
        seed=seed,
    )
    facts = {
        "method": made.method,
        "options": _without_nan(made.options),
        "quality": _without_nan(vars(made.quality)),
        "note": made.note,
    }
    save_derived(trace, "map", {"points": made.points, "facts": facts}, params=params)
    return made


def stored_map(
    trace: RoutingTrace,
    *,
    of: Of = "expert",
    values: Values = "lift",
    method: MapMethod = "umap",
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    most_items: int = 4000,
    seed: int = 0,
) -> Projection | None:
    """What `routing_map` made with these parameters before; None if it never did, or could not keep it.

    Returns:
        (item) · Projection of positions without unit · any.
    """
    return _kept(
        trace,
        _params(
            of=of,
            values=values,
            method=method,
            n_neighbors=n_neighbors,
            min_dist=min_dist,
            most_items=most_items,
            seed=seed,
        ),
    )


def routing_clusters(
    trace: RoutingTrace, *, of: Of = "expert", values: Values = "lift", n_clusters: int | None = None, seed: int = 0
) -> Clustering:
    """Clusters of a trace's experts, prompts or tasks: `clusters` of `signatures`.

    Returns:
        (item) · Clustering of cluster numbers · −1 and up.

    Raises:
        SelectionError: a name is none of those allowed.
        TraceError: prompts are asked of a trace of level "counts".
    """
    return clusters(signatures(trace, of=of, values=values), n_clusters=n_clusters, seed=seed)


def _params(*, method: MapMethod, n_neighbors: int, min_dist: float, **options: Any) -> dict[str, Any]:
    """What a map depends on; parameters that the method does not know are left out."""
    params = {"method": method, "n_neighbors": n_neighbors, "version": 1} | options
    if method == "umap":
        params |= {"min_dist": min_dist, "umap": version("umap-learn")}
    return params


def _kept(trace: RoutingTrace, params: dict[str, Any]) -> Projection | None:
    kept = load_derived(trace, "map", params=params)
    if kept is None:
        return None
    points, facts = kept["points"], kept["facts"]
    if not isinstance(points, pd.DataFrame):
        return None
    return Projection(
        points=points,
        method=facts["method"],
        options=_with_nan(facts["options"]),
        quality=MapQuality(**_with_nan(facts["quality"])),
        note=facts["note"],
    )


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    return {name: None if value != value else value for name, value in values.items()}


def _with_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in values.items()}
