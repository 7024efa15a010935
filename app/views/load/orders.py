"""The orders of the load heatmap: layers down, and in each layer its own order of experts across.

Expert 5 of one layer and expert 5 of the next have nothing to do with each other, so no column is common to layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from app import cache
from app.questions import layer_order
from app.views.tasks.orders import clustered, tested
from app.views.tasks.table import column_types, expert_metric
from figures.trees import Tree, whole_tree
from routing import RoutingTrace, Selection

__all__ = ["COLUMNS", "ROWS", "Arranged", "arranged", "of_order"]

ROWS = {"model": "as in the model", "clustered": "clustered", "uneven": "least even first", "entropy": "by entropy"}
COLUMNS = {
    "number": "by number",
    "load": "by load",
    "clustered": "clustered",
    "type": "by type served",
    "strength": "by preference",
    "even": "by evenness",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Arranged:
    """Where everything stands.

    Attributes:
        layers: labels, downward.
        experts: (layer, place) · which expert stands there; None for the order of their numbers.
        tree: who joins whom among the layers; None where no tree ordered them.
    """

    layers: list[str]
    experts: np.ndarray | None
    tree: Tree | None

    def at(self, row: int, place: int) -> tuple[str, int]:
        """The expert that stands at a place."""
        return self.layers[row], place if self.experts is None else int(self.experts[row, place])


def arranged(
    trace: RoutingTrace, *, within: Selection, load: xr.DataArray, balance: pd.DataFrame, rows: str, columns: str
) -> Arranged:
    """The order of layers and of the experts of each.

    Args:
        trace: the trace.
        within: what narrows the loads.
        load: (layer, expert) · share of the layer's assignments.
        balance: of `load_balance`, by layer.
        rows: a key of `ROWS`.
        columns: a key of `COLUMNS`.
    """
    layers, tree = [str(label) for label in load["layer"].values], None
    if rows == "clustered" and len(layers) > 2:
        order = cache.answer(trace, layer_order, within=within)
        layers = [layers[place] for place in order.order]
        tree = None if order.linkage is None or order.n_left_out else whole_tree(order.linkage)
    elif rows in ("uneven", "entropy"):
        metric = balance["max_over_mean"] if rows == "uneven" else -balance["entropy_normalized"]
        layers = list(metric.reindex(layers).sort_values(ascending=False, kind="stable", na_position="last").index)
    experts = None if columns == "number" else _experts(trace, load.sel(layer=layers), columns)
    return Arranged(layers=layers, experts=experts, tree=tree)


def of_order(order: Arranged, *, rows: str, columns: str) -> str:
    """What the places mean where they are not those of the model; empty where they are."""
    parts = []
    if rows == "clustered" and order.tree is not None:
        parts.append(
            "Layers whose loads fall off alike from the busiest expert to the idlest stand together (Ward's tree over "
            "the sorted loads, not over this picture)."
        )
    if order.experts is not None:
        how = {
            "load": "the busiest first",
            "clustered": "those beside each other that serve the same tasks (by lift, over all tasks)",
            "type": "by the type of task served most beyond chance, those for none last",
            "strength": "the clearest preference for a task first",
            "even": "those first that fewest tasks share",
        }[columns]
        parts.append(
            f"Each layer has its own order of experts, {how}: a column joins places, not experts, and a click on its "
            "number selects who stands there in every layer."
        )
    return "".join(f" {part}" for part in parts)


def _experts(trace: RoutingTrace, load: xr.DataArray, columns: str) -> np.ndarray | None:
    layers = [str(label) for label in load["layer"].values]
    if columns == "load":
        metric = load
    elif columns in ("clustered", "type"):
        found = clustered(trace, of="expert", values="lift", layers=())
        if found is None:
            return None
        place = {expert: number for number, expert in enumerate(found.names)}
        if columns == "type":
            serves = column_types(trace) or {}
            types = [*dict.fromkeys(trace.task_types.values()), None]
            place = {expert: types.index(serves.get(expert)) * len(place) + at for expert, at in place.items()}
        numbers = range(load.sizes["expert"])
        metric = load.copy(data=[[-float(place.get((label, each), np.inf)) for each in numbers] for label in layers])
    else:
        metric = expert_metric(trace, columns, special=tested(trace, over="task")).sel(layer=layers)
    table = metric.transpose("layer", "expert").to_numpy()
    # What a layer does not have comes last.
    there = trace.expert_exists.sel(layer=layers).transpose("layer", "expert").to_numpy()
    table = np.where(there, np.where(np.isnan(table), -1e18, table), -np.inf)
    order: np.ndarray = np.argsort(-table, axis=1, kind="stable")
    return order
