"""Routes of tasks: how much each task uses each expert of each layer, how decided that is, and which tasks are alike.

Legend: D task, L layer, E expert, B bootstrap draw or deal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.agreement import Agreement, agreement
from analysis.hierarchy import Order
from analysis.mantel import MantelTest, mantel
from analysis.rates import group_rates
from analysis.similarity import cosines
from routing.errors import SelectionError, TraceError
from routing.trace import RoutingTrace

__all__ = [
    "RouteDistance",
    "RouteGrouping",
    "RouteMode",
    "route_grouping",
    "route_similarity",
    "route_entropy",
    "task_routes",
]

RouteMode = Literal["recorded", "route", "route_softmax_t1"]
RouteDistance = Literal["cosine", "jensen_shannon"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RouteGrouping:
    """Whether tasks that are routed alike are of one type.

    Attributes:
        labels: index task · task_type, cluster.
        agreement: how far clusters and types agree, corrected for chance, with its null.
        order: tasks so that like routes stand beside each other, with the tree.
        embedding: `mantel` of the routes' similarity with that of the task embeddings; None where there are none.
    """

    labels: pd.DataFrame
    agreement: Agreement
    order: Order
    embedding: MantelTest | None


def task_routes(trace: RoutingTrace, *, mode: RouteMode = "recorded") -> xr.DataArray:
    """How much each task uses each expert, as shares of a layer.

    - "recorded": from the rows of the trace, as a mean over the task's prompts: the share of its assignments, or of the
      weight where every expert is always selected. Works for every trace.
    - "route": read off the router for every task that it knows, in the mode and at the temperature in which it ran.
    - "route_softmax_t1": the same without noise, as a softmax at temperature 1: how decided the router is.

    Returns:
        (task, layer, expert) · share of the layer · 0 to 1, sums to 1 over expert; NaN where the layer lacks the expert
        or routed nothing of the task.

    Raises:
        SelectionError: the mode is unknown.
        TraceError: the trace holds no such vectors.
    """
    if mode not in ("recorded", "route", "route_softmax_t1"):
        msg = f"Routes are recorded, route or route_softmax_t1, not {mode!r}. Correct the mode."
        raise SelectionError(msg)
    if mode == "recorded":
        rate_DLE = group_rates(trace, over="task").rate_GLE
        total = np.nansum(rate_DLE, axis=-1, keepdims=True)
        values, tasks, layers = rate_DLE / np.where(total > 0, total, np.nan), list(trace.tasks), list(trace.layers)
    else:
        table = trace.vectors.get(mode)
        if table is None:
            msg = f"This trace holds no routes {mode!r} read off the model. Take mode 'recorded', or a trace with them."
            raise TraceError(msg)
        values, tasks = table.to_numpy().astype(float), [str(name) for name in table["task_row"].values]
        layers = [str(label) for label in table["layer"].values]
    return xr.DataArray(
        values,
        dims=("task", "layer", "expert"),
        coords={
            "task": tasks,
            "layer": layers,
            "expert": np.arange(values.shape[2]),
            "task_type": ("task", [trace.task_types.get(task, "other") for task in tasks]),
        },
        attrs={"unit": "share of the layer", "mode": mode},
    )


def route_entropy(
    trace: RoutingTrace, *, mode: RouteMode = "recorded", n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How many experts tasks share, and how far tasks part ways, in each layer.

    With p_d the route of task d and H the entropy in nats: `effective_experts` = exp(H(mean p)), `task_entropy` = mean
    H(p_d), `specialization` = H(mean p) − mean H(p_d), with 95 % intervals from drawing tasks with replacement.
    `dealt_low` and `dealt_high` hold 95 % of the specialization of routes whose experts are named anew for each task:
    routes that are decided but have nothing in common reach it without any specialist.

    Args:
        trace: the trace.
        mode: which routes, as in `task_routes`.
        n_bootstrap: draws and deals; 0 for none.
        seed: of both.

    Returns:
        (layer) · effective_experts, effective_experts_low, effective_experts_high, task_entropy, task_entropy_low,
        task_entropy_high, specialization, specialization_low, specialization_high, dealt_low, dealt_high, n_tasks ·
        experts 1 to E, entropies 0 to ln E in nats.

    Raises:
        SelectionError: the mode is unknown.
        TraceError: the trace holds no such vectors.

    References:
        Hill 1973 (exp of the entropy); Lin 1991 (the divergence of a set of distributions).
    """
    routes = task_routes(trace, mode=mode)
    names = ("effective_experts", "task_entropy", "specialization")
    rows = []
    for layer in routes["layer"].values:
        route_DE = routes.sel(layer=layer).to_numpy()
        route_DE = np.nan_to_num(route_DE[np.isfinite(route_DE).any(axis=1)])
        n_tasks = len(route_DE)
        row: dict[str, float] = {"n_tasks": n_tasks}
        observed = _shared_and_apart(np.full((1, n_tasks), 1 / max(1, n_tasks)), route_DE)
        rng = np.random.default_rng(seed)
        drawn = [np.full((1, n_tasks), np.nan)] * 3
        dealt = np.full(2, np.nan)
        if n_bootstrap and n_tasks > 1:
            drawn = _shared_and_apart(
                rng.multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), n_bootstrap) / n_tasks, route_DE
            )
            there = np.flatnonzero((routes.sel(layer=layer) >= 0).any("task"))
            even = np.full((1, n_tasks), 1 / n_tasks)
            dealt = np.quantile(
                [_shared_and_apart(even, rng.permuted(route_DE[:, there], axis=1))[2][0] for _ in range(n_bootstrap)],
                [0.025, 0.975],
            )
        for name, value, values in zip(names, observed, drawn, strict=True):
            known = np.isfinite(values).any()
            bounds = np.quantile(values, [0.025, 0.975]) if known else (np.nan, np.nan)
            row |= {name: float(value[0]) if n_tasks else np.nan, f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
        rows.append(row | {"dealt_low": dealt[0], "dealt_high": dealt[1]})
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")] + [
        "dealt_low",
        "dealt_high",
        "n_tasks",
    ]
    frame = pd.DataFrame(rows, index=pd.Index(list(routes["layer"].values), name="layer"))[columns]
    frame.attrs["unit"] = {name: "experts" if name.startswith("effective") else "nats" for name in columns[:-1]}
    frame.attrs["mode"] = mode
    return frame


def route_similarity(
    trace: RoutingTrace, *, mode: RouteMode = "recorded", distance: RouteDistance = "cosine"
) -> xr.DataArray:
    """How alike tasks are routed.

    "cosine" of the routes of all layers together; or 1 − mean over layers of the Jensen–Shannon divergence, in units of
    ln 2, which looks at each layer for itself.

    Returns:
        (task, other) · similarity · cosine 0 to 1, the other 0 to 1; 1 the same.

    Raises:
        SelectionError: mode or distance are unknown.
        TraceError: the trace holds no such vectors.

    References:
        Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    routes = task_routes(trace, mode=mode)
    values = np.nan_to_num(routes.to_numpy())
    if distance == "cosine":
        found = cosines(values.reshape(len(values), -1))
    elif distance == "jensen_shannon":
        middle = (values[:, None] + values[None, :]) / 2
        entropy = _entropies(values)
        divergence = _entropies(middle) - (entropy[:, None] + entropy[None, :]) / 2
        found = 1 - divergence.mean(axis=-1) / np.log(2)
    else:
        msg = f"Routes are compared by cosine or jensen_shannon, not by {distance!r}. Correct the distance."
        raise SelectionError(msg)
    tasks = routes["task"].values
    coords = {"task": tasks, "other": tasks, "task_type": ("task", routes["task_type"].values)}
    unit = "cosine" if distance == "cosine" else "1 − divergence / ln 2"
    return xr.DataArray(found, dims=("task", "other"), coords=coords, attrs={"unit": unit, "mode": mode})


def route_grouping(
    trace: RoutingTrace,
    *,
    mode: RouteMode = "recorded",
    distance: RouteDistance = "cosine",
    n_permutations: int = 1000,
    seed: int = 0,
) -> RouteGrouping:
    """Whether tasks that are routed alike are of one type: as many clusters as types, by average linkage.

    The router of a task-level model is a smooth function of the task embedding, so routes inherit its likeness even
    before any training: `embedding` says how far. The control is the same figure for an untrained checkpoint.

    Args:
        trace: the trace.
        mode: which routes, as in `task_routes`.
        distance: as in `route_similarity`.
        n_permutations: for the nulls.
        seed: of the permutations.

    Returns:
        (no dimension) · RouteGrouping of clusters of tasks · cluster 0 and up.

    Raises:
        SelectionError: mode or distance are unknown.
        TraceError: the trace holds no such vectors.
    """
    # Slow to import, and not every view clusters.
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    alike = route_similarity(trace, mode=mode, distance=distance)
    types, n_tasks = alike["task_type"].to_numpy(), alike.sizes["task"]
    cluster, tree, order = np.zeros(n_tasks, dtype=int), None, np.arange(n_tasks)
    if n_tasks > 1:
        apart = np.clip(np.nan_to_num(1 - alike.to_numpy(), nan=1.0), 0, None)
        np.fill_diagonal(apart, 0)
        condensed = squareform((apart + apart.T) / 2, checks=False)
        tree = hierarchy.optimal_leaf_ordering(hierarchy.linkage(condensed, method="average"), condensed)
        order = hierarchy.leaves_list(tree)
        cluster = hierarchy.fcluster(tree, len(set(types)), criterion="maxclust") - 1
    embedding = None
    if (table := trace.vectors.get("task_embedding")) is not None:
        names = [str(name) for name in table["task_row"].values]
        shared = [name for name in alike["task"].values if name in names]
        rows = table.to_numpy()[[names.index(name) for name in shared]].astype(float)
        embedding = mantel(
            alike.sel(task=shared, other=shared), cosines(rows), n_permutations=n_permutations, seed=seed
        )
    labels = pd.DataFrame({"task_type": types, "cluster": cluster}, index=pd.Index(alike["task"].values, name="task"))
    labels.attrs["unit"] = {"cluster": "number"}
    return RouteGrouping(
        labels=labels,
        agreement=agreement(cluster, types, n_permutations=n_permutations, seed=seed),
        order=Order(order=order, linkage=tree, leaf=np.arange(len(order)), n_left_out=0, exact=True),
        embedding=embedding,
    )


def _entropies(share: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = -np.where(share > 0, share * np.log(share), 0.0).sum(axis=-1)
    return found


def _shared_and_apart(weight_BD: np.ndarray, route_DE: np.ndarray) -> list[np.ndarray]:
    """Effective experts, mean entropy of tasks and specialization, for weights of tasks that sum to 1."""
    pooled = _entropies(weight_BD @ route_DE)
    own = weight_BD @ _entropies(route_DE)
    return [np.exp(pooled), own, pooled - own]
