"""The orders that clustering gives rows and columns of the task heatmap, and the test that mutes its cells.

Of a large run all three take longer than a reader should wait, so they are found beside the page: until they are there,
rows and columns stand as recorded and no cell is muted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.specialization import specialization
from app import cache, slow_answers
from app.questions import expert_order, task_order
from figures.trees import Tree
from routing import RoutingTrace, load_derived, save_derived

__all__ = ["Clustered", "clustered", "is_large", "tested"]

Expert = tuple[str, int]

_TESTED = ("z", "p_value", "q_value", "significant")
_N_PERMUTATIONS = 1000
_ORDERS, _CELLS = "heatmap-orders", "heatmap-cells"
_VERSION = {"version": 1}
# Prompts × experts up to which a thousand shuffles, and the orders, take about a second.
_MOST_AT_ONCE = 300_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Clustered:
    """Tasks or experts in an order in which neighbors are alike.

    Attributes:
        names: tasks, or (layer, expert), in that order.
        leaf: of each, in the order of `names`, its leaf of the tree; −1 for those without any number.
        linkage: the tree; None where fewer than two have numbers.
        exact: whether leaves are single items, and not clusters of them.
    """

    names: tuple
    leaf: np.ndarray
    linkage: np.ndarray | None
    exact: bool

    def tree(self, places: dict) -> Tree | None:
        """The tree as it stands beside what is drawn.

        Args:
            places: name → place along the axis, of those that are drawn.
        """
        if self.linkage is None:
            return None
        there = np.array([places.get(name, np.nan) for name in self.names], dtype=float)
        known = np.isfinite(there) & (self.leaf >= 0)
        n_leaves = len(self.linkage) + 1
        counts = np.bincount(self.leaf[known], minlength=n_leaves)
        sums = np.bincount(self.leaf[known], weights=there[known], minlength=n_leaves)
        return Tree(linkage=self.linkage, places=np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def is_large(trace: RoutingTrace) -> bool:
    """Whether tests and orders of this run are found beside the page."""
    return trace.n_prompts * int(trace.expert_exists.sum()) > _MOST_AT_ONCE


def clustered(
    trace: RoutingTrace, *, of: Literal["task", "expert"], values: str, layers: tuple[str, ...]
) -> Clustered | None:
    """Tasks or experts clustered by all their numbers; None while that is being found."""
    tables = slow_answers.tables(
        trace,
        order_tables,
        what=f"{'Tasks' if of == 'task' else 'Experts'} are being clustered",
        slow=is_large(trace),
        of=of,
        values=values,
        layers=layers,
    )
    if tables is None:
        return None
    order, tree = tables["order"], tables["tree"]
    names = order["task"] if of == "task" else zip(order["layer"], order["expert"].astype(int), strict=True)
    return Clustered(
        names=tuple(names),
        leaf=order["leaf"].to_numpy(),
        linkage=tree.to_numpy(float) if len(tree) else None,
        exact=bool(order["exact"].all()),
    )


def order_tables(
    trace: RoutingTrace, *, of: Literal["task", "expert"], values: Literal["lift", "load", "rate"], layers: tuple
) -> slow_answers.Tables:
    """The order of tasks or experts and the tree behind it, as tables.

    Returns:
        "order": (place) · task, or layer and expert; leaf; exact; "tree": (join) · one, other, height, size.
    """
    asked = {"of": of, "values": values, "layers": list(layers)} | _VERSION
    if (kept := load_derived(trace, _ORDERS, params=asked)) is not None:
        return kept
    if of == "task":
        tasks = task_order(trace, values=values, layers=tuple(layers))
        order, names = tasks.order, pd.DataFrame({"task": tasks.names})
    else:
        experts = expert_order(trace, values=values, layers=tuple(layers))
        order, names = experts.order, pd.DataFrame(list(experts.experts), columns=["layer", "expert"])
    joins = np.zeros((0, 4)) if order.linkage is None else order.linkage
    found = {
        "order": names.assign(leaf=order.leaf[order.order], exact=order.exact),
        "tree": pd.DataFrame(joins, columns=["one", "other", "height", "size"]),
    }
    if is_large(trace):
        save_derived(trace, _ORDERS, found, params=asked)
    return found


def tested(trace: RoutingTrace, *, over: Literal["task", "task_type"]) -> xr.Dataset:
    """The lifts of a run, and whether each is beyond chance; `attrs["n_permutations"]` is 0 as long as nobody knows."""
    if trace.level == "counts":
        return cache.answer(trace, specialization, over=over, n_permutations=0)
    if not is_large(trace):
        return cache.answer(trace, specialization, over=over, n_permutations=_N_PERMUTATIONS)
    tables = slow_answers.tables(
        trace, permuted_cells, what="Cells are being compared with shuffled prompts", slow=True, over=over
    )
    if tables is None:
        return cache.answer(trace, specialization, over=over, n_permutations=0).assign_attrs(waits=True)
    if "cells" in tables:
        return _joined(cache.answer(trace, specialization, over=over, n_permutations=0), tables["cells"])
    return cache.answer(trace, kept_cells, over=over)


def kept_cells(trace: RoutingTrace, *, over: Literal["task", "task_type"]) -> xr.Dataset:
    """Lifts with the test that `permuted_cells` left beside the trace."""
    kept = load_derived(trace, _CELLS, params=_cells_asked(over))
    assert kept is not None
    return _joined(specialization(trace, over=over, n_permutations=0), kept["cells"])


def permuted_cells(trace: RoutingTrace, *, over: Literal["task", "task_type"]) -> slow_answers.Tables:
    """What shuffled prompts say of every cell, left beside the trace; millions of cells need not be read at each rerun.

    Returns:
        "kept", a table of nothing, where they could be left there; else "cells": (cell) · z, p_value, q_value,
        significant, groups × layers × experts in turn.
    """
    kept = {"kept": pd.DataFrame({"over": [over]})}
    asked = _cells_asked(over)
    if load_derived(trace, _CELLS, params=asked) is not None:
        return kept
    found = specialization(trace, over=over, n_permutations=_N_PERMUTATIONS)
    columns = {name: found[name].transpose("group", "layer", "expert").to_numpy().ravel() for name in _TESTED}
    smaller = {name: each if each.dtype == bool else each.astype(np.float32) for name, each in columns.items()}
    cells = {"cells": pd.DataFrame(smaller)}
    save_derived(trace, _CELLS, cells, params=asked)
    return cells if load_derived(trace, _CELLS, params=asked) is None else kept


def _cells_asked(over: str) -> dict[str, object]:
    return {"over": over, "n_permutations": _N_PERMUTATIONS} | _VERSION


def _joined(plain: xr.Dataset, cells: pd.DataFrame) -> xr.Dataset:
    dims = ("group", "layer", "expert")
    shape = tuple(plain.sizes[name] for name in dims)
    found = {name: (dims, cells[name].to_numpy().reshape(shape)) for name in _TESTED}
    return plain.assign(found).assign_attrs(n_permutations=_N_PERMUTATIONS)
