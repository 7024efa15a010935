"""Questions that take several steps of analysis, each a function of a trace so that the cache can hold its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from analysis.agreement import ExpertTaskTypes, expert_task_types
from analysis.clustering import Clustering, clusters
from analysis.findings import Finding, findings
from analysis.hierarchy import Order, hierarchical_order
from analysis.load import expert_load
from analysis.signatures import signatures
from routing import RoutingTrace

__all__ = [
    "ExpertGroups",
    "ExpertOrder",
    "TaskOrder",
    "expert_groups",
    "expert_order",
    "findings_since",
    "layer_order",
    "task_order",
]

Values = Literal["lift", "load", "rate"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskOrder:
    """Tasks in an order in which neighbors are routed alike.

    Attributes:
        names: the tasks in that order.
        order: how it was found; its tree stands over the trace's order of tasks.
    """

    names: tuple[str, ...]
    order: Order


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertOrder:
    """Experts in an order in which neighbors serve the same tasks.

    Attributes:
        experts: (layer, expert) in that order; those never chosen come last.
        order: how it was found.
    """

    experts: tuple[tuple[str, int], ...]
    order: Order


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertGroups:
    """Clusters of experts that serve the same tasks, and how they line up with the types of the tasks.

    Attributes:
        clustering: the groups.
        types: how they line up with task types; None where the trace has a single type, or a single group.
        members: of each group, (layer, expert), those most typical of it first.
    """

    clustering: Clustering
    types: ExpertTaskTypes | None
    members: tuple[tuple[tuple[str, int], ...], ...]


def task_order(trace: RoutingTrace, *, values: Values, layers: tuple[str, ...] = ()) -> TaskOrder:
    """Tasks by how alike they use the experts of some layers, or of all."""
    table = signatures(trace, of="task", values=values)
    if layers:
        table = table.isel(feature=np.isin(table["layer"].values.astype(str), layers))
    order = hierarchical_order(table, axis="item")
    return TaskOrder(names=tuple(str(table["task"].values[place]) for place in order.order), order=order)


def expert_order(trace: RoutingTrace, *, values: Values, layers: tuple[str, ...] = ()) -> ExpertOrder:
    """Experts of some layers, or of all, by how alike tasks use them."""
    table = _of_experts(trace, values=values, layers=layers)
    order = hierarchical_order(table, axis="item")
    names = list(zip(table["layer"].values.astype(str), table["expert"].values.tolist(), strict=True))
    return ExpertOrder(experts=tuple((str(layer), int(e)) for layer, e in (names[i] for i in order.order)), order=order)


def layer_order(trace: RoutingTrace) -> Order:
    """Layers by how alike their loads fall off from the busiest expert to the idlest.

    Experts of two layers have only their ranks in common, so it is the sorted loads that are compared.
    """
    load = expert_load(trace).transpose("layer", "expert").to_numpy()
    known = np.isfinite(load)
    factor = np.where(known, load * known.sum(axis=1, keepdims=True), 0.0)
    falling = np.where(known.any(axis=1, keepdims=True), -np.sort(-factor, axis=1), np.nan)
    return hierarchical_order(xr.DataArray(falling, dims=("item", "feature")))


def expert_groups(trace: RoutingTrace, *, layers: tuple[str, ...] = (), seed: int = 0) -> ExpertGroups:
    """Clusters of experts by the lift of the tasks they serve."""
    table = _of_experts(trace, values="lift", layers=layers)
    clustering = clusters(table, seed=seed)
    labels = clustering.labels
    several = clustering.n_clusters > 1 and len(set(trace.task_types.values())) > 1
    types = expert_task_types(table, labels, seed=seed) if several else None
    return ExpertGroups(clustering=clustering, types=types, members=_members(table, labels))


def _of_experts(trace: RoutingTrace, *, values: Values, layers: tuple[str, ...]) -> xr.DataArray:
    table = signatures(trace, of="expert", values=values)
    return table.isel(item=np.isin(table["layer"].values.astype(str), layers)) if layers else table


def _members(table: xr.DataArray, labels: xr.DataArray) -> tuple[tuple[tuple[str, int], ...], ...]:
    values = np.nan_to_num(table.to_numpy())
    found = []
    for number in np.unique(labels.to_numpy()[labels.to_numpy() >= 0]):
        places = np.flatnonzero(labels.to_numpy() == number)
        center = values[places].mean(axis=0)
        nearest = places[np.argsort(((values[places] - center) ** 2).sum(axis=1), kind="stable")]
        found.append(
            tuple((str(table["layer"].values[place]), int(table["expert"].values[place])) for place in nearest)
        )
    return tuple(found)


def findings_since(traces: Mapping[str, RoutingTrace]) -> list[Finding]:
    """What stands out in the run "now", and what changed in it since the run "before".

    Returns:
        (finding) · list of Finding · strength descending.
    """
    return findings(traces["now"], before=traces["before"])
