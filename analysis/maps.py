"""Maps and clusters of a trace, kept beside it: they take seconds to make and are looked at often."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.adapter_signatures import adapter_signatures
from analysis.clustering import Clustering, clusters
from analysis.kept_maps import keep_map, kept_map
from analysis.projection import MapMethod, Projection, laid_out, project
from analysis.signatures import Of, Values, signatures
from analysis.token_routes import described_tokens, route_features
from routing.trace import RoutingTrace

__all__ = ["MappedOf", "routing_clusters", "routing_map", "stored_map"]

MappedOf = Literal["expert", "prompt", "task", "token", "adapter"]

NAME = "map"

_DEFAULTS = {"token": "weight", "adapter": "parameters"}


def routing_map(
    trace: RoutingTrace,
    *,
    of: MappedOf = "expert",
    values: str | None = None,
    method: MapMethod = "umap",
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    most_items: int = 4000,
    seed: int = 0,
) -> Projection:
    """The map of a trace's experts, prompts, tasks, tokens or adapters, made once and kept beside it.

    Experts, prompts and tasks are laid out by their `signatures`, tokens by the overlap of their routes
    (`token_overlap`), adapters by their numbers (`adapter_signatures`). Of many tokens or adapters a stratified draw
    is shown: `note` says how many, the column `weight` how many each one stands for.

    Args:
        trace: the trace.
        of: what the points are.
        values: what describes them: "lift" (the default), "load" or "rate"; of tokens "weight" (the default) or
            "selected"; of adapters "parameters" (the default) or the name of a conditioning vector.
        method: "umap", or "pca" for the two principal components.
        n_neighbors: how many neighbors UMAP tries to keep; also the size of neighborhoods in `quality`.
        min_dist: how close UMAP may put points.
        most_items: most points.
        seed: of the draw and of UMAP.

    Returns:
        (item) · Projection of positions without unit · any.

    Raises:
        SelectionError: a name is none of those allowed.
        TraceError: prompts or tokens are asked of a trace of level "counts", or adapters of one without them.
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
    if (kept := kept_map(trace, name=NAME, params=params)) is not None:
        return kept
    asked: dict[str, Any] = {"method": method, "n_neighbors": n_neighbors, "min_dist": min_dist, "seed": seed}
    values = values or _DEFAULTS.get(of, "lift")
    if of == "token":
        made = _of_tokens(trace, values=values, most_items=most_items, **asked)
    elif of == "adapter":
        made = _of_adapters(trace, values=values, most_items=most_items, **asked)
    else:
        # Names that are none of those allowed are refused there.
        made = project(signatures(trace, of=of, values=values), most_items=most_items, **asked)  # type: ignore[arg-type]
    keep_map(trace, made, name=NAME, params=params)
    return made


def stored_map(
    trace: RoutingTrace,
    *,
    of: MappedOf = "expert",
    values: str | None = None,
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
    params = _params(
        of=of,
        values=values,
        method=method,
        n_neighbors=n_neighbors,
        min_dist=min_dist,
        most_items=most_items,
        seed=seed,
    )
    return kept_map(trace, name=NAME, params=params)


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


def _of_tokens(trace: RoutingTrace, *, values: str, most_items: int, seed: int, **asked: Any) -> Projection:
    sample = described_tokens(trace, n_tokens=most_items, seed=seed)
    features = route_features(trace, sample["token"].to_numpy(), values=values)  # type: ignore[arg-type]
    routed = np.diff(features.indptr) > 0
    notes = []
    if len(sample) < trace.n_tokens:
        notes.append(
            f"The map shows {len(sample):,} of {trace.n_tokens:,} tokens, drawn at random: as many of each task and "
            "phase, so sizes of groups on it are not sizes in the trace."
        )
    if n_unrouted := int((~routed).sum()):
        notes.append(f"{n_unrouted} tokens that no layer routed are not on the map.")
    items = sample[routed].rename(columns={"token": "item"}).reset_index(drop=True)
    return laid_out(
        features[routed], items, seed=seed, options={"most_items": most_items}, note=" ".join(notes), **asked
    )


def _of_adapters(trace: RoutingTrace, *, values: str, most_items: int, seed: int, **asked: Any) -> Projection:
    table = adapter_signatures(trace, values=values, most_items=most_items, seed=seed)
    n_adapters = 0 if trace.adapters is None else len(trace.adapters)
    notes = []
    if table.sizes["item"] < n_adapters:
        notes.append(
            f"The map shows {table.sizes['item']:,} of {n_adapters:,} adapters, drawn at random: as many of each site."
        )
    if table.attrs["projected"]:
        notes.append("Their parameters are kept as random projections, which keep distances on average.")
    columns = {name: coord.to_numpy() for name, coord in table.coords.items() if coord.dims == ("item",)}
    return laid_out(
        table.to_numpy(),
        pd.DataFrame(columns),
        seed=seed,
        options={"most_items": most_items},
        note=" ".join(notes),
        **asked,
    )


def _params(
    *, of: str, values: str | None, method: MapMethod, n_neighbors: int, min_dist: float, **options: Any
) -> dict[str, Any]:
    """What a map depends on; parameters that the method does not know are left out."""
    params: dict[str, Any] = {"of": of, "values": values or _DEFAULTS.get(of, "lift"), "method": method}
    params |= {"n_neighbors": n_neighbors, "version": 2} | options
    if method == "umap":
        params |= {"min_dist": min_dist, "umap": version("umap-learn")}
    return params
