"""Which rows and columns the task heatmap shows, in which order, and which part of them is zoomed into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from analysis.evenness import evenness_of_experts, evenness_of_groups
from analysis.load import expert_load
from analysis.scores import task_scores
from app import cache
from app.components.plot_bridge import Range
from app.views.map.kept import strongest_groups, strongest_of
from app.views.tasks.orders import Clustered, clustered, is_large, tested
from figures.cells import Cells
from routing import RoutingTrace, Selection

__all__ = [
    "COLUMNS",
    "ROWS",
    "Asked",
    "Ordered",
    "Window",
    "column_types",
    "expert_metric",
    "experts_in_order",
    "groups_in_order",
]

Expert = tuple[str, int]

ROWS = {
    "clustered": "clustered",
    "type": "by type",
    "strength": "by preference",
    "score": "by score",
    "even": "by evenness",
    "recorded": "recorded",
}
COLUMNS = {
    "layer": "by layer",
    "clustered": "clustered",
    "type": "by type served",
    "strength": "by preference",
    "load": "by load",
    "even": "by evenness",
}
_CLUSTERED_ROWS = ("clustered", "type")
_CLUSTERED_COLUMNS = ("clustered", "type")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the controls above the heatmap say."""

    values: Literal["lift", "rate", "load"]
    over: Literal["task", "task_type"]
    rows: str
    columns: str


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of the table: rows and columns from and up to, in the order they are drawn in."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def to_text(self, asked: Asked, *, shape: tuple[int, int]) -> str:
        """As the URL writes it, with the order that it counts in: another order makes it void."""
        (top, bottom), (left, right) = self.rows, self.columns
        return f"{left}-{right}.{top}-{bottom}.{_order_of(asked, shape)}"

    @classmethod
    def from_text(cls, text: str | None, asked: Asked, *, shape: tuple[int, int]) -> Window | None:
        """The window that the URL names; None where it names none of this table."""
        match = re.fullmatch(r"(\d{1,6})-(\d{1,6})\.(\d{1,6})-(\d{1,6})\.(.+)", text or "")
        if match is None or match[5] != _order_of(asked, shape):
            return None
        left, right, top, bottom = (int(match[number]) for number in range(1, 5))
        fits = left < right <= shape[1] and top < bottom <= shape[0]
        return cls(rows=(top, bottom), columns=(left, right)) if fits else None

    @classmethod
    def of_range(cls, seen: Range, cells: Cells, *, origin: tuple[int, int]) -> Window:
        """The window that a zoom into the drawn cells asks for.

        Args:
            seen: ends of the axes, in drawn cells.
            cells: what was drawn.
            origin: row and column of the whole table at which it began.
        """
        n_rows, n_columns = cells.values.shape
        # A cell reaches half to either side of its number.
        first, last = (
            int(np.clip(np.floor(each + 0.5), 0, n_columns - 1)) for each in (min(seen.x), max(seen.x) - 1e-6)
        )
        top, bottom = (int(np.clip(np.floor(each + 0.5), 0, n_rows - 1)) for each in (min(seen.y), max(seen.y) - 1e-6))
        left = origin[1] + int(cells.columns[first])
        right = origin[1] + min(len(cells.experts), int(cells.columns[last]) + cells.n_pooled)
        return cls(rows=(origin[0] + top, origin[0] + bottom + 1), columns=(left, right))


def _order_of(asked: Asked, shape: tuple[int, int]) -> str:
    # By layer, the columns stand alike whatever is drawn.
    values = "" if asked.columns == "layer" and asked.rows in ("recorded", "score") else asked.values
    return f"{asked.over}.{asked.rows}.{asked.columns}.{values}.{shape[0]}x{shape[1]}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Ordered:
    """Rows or columns as they are asked for.

    Attributes:
        names: tasks or types, or (layer, expert), in order.
        clustered: what put them into that order; None where no tree did, or it is still being found.
        waits: whether the order that was asked for is still being found.
    """

    names: list
    clustered: Clustered | None = None
    waits: bool = False


def tree_of_rows(trace: RoutingTrace, selection: Selection, asked: Asked) -> Clustered | None:
    """Tasks as clustering orders them; None where another order is asked for, or it is still being found."""
    if asked.over == "task_type" or asked.rows not in _CLUSTERED_ROWS:
        return None
    return clustered(trace, of="task", values=asked.values, layers=tuple(selection.layers))


def tree_of_columns(trace: RoutingTrace, selection: Selection, asked: Asked) -> Clustered | None:
    """The same of experts."""
    if asked.columns not in _CLUSTERED_COLUMNS:
        return None
    return clustered(trace, of="expert", values=asked.values, layers=tuple(selection.layers))


def groups_in_order(
    trace: RoutingTrace, selection: Selection, asked: Asked, *, special: xr.Dataset, found: Clustered | None
) -> Ordered:
    """The rows: selected tasks, or their types, as the controls order them.

    Args:
        trace: the trace.
        selection: what the reader selected.
        asked: what the controls say.
        special: lifts and rates, as `specialization` gives them.
        found: of `tree_of_rows`.
    """
    shown = set(selection.tasks or trace.tasks)
    if asked.over == "task_type":
        shown = {trace.task_types[task] for task in shown}
        return Ordered(names=[name for name in _types_in_order(trace, asked, special=special) if name in shown])
    names: Sequence[str] = trace.tasks
    if asked.rows in _CLUSTERED_ROWS:
        names = trace.tasks if found is None else found.names
        if asked.rows == "type":
            types = list(dict.fromkeys(trace.task_types.values()))
            names = sorted(names, key=lambda task: types.index(trace.task_types[task]))
    elif asked.rows == "score":
        scores = cache.answer(trace, task_scores)["score"].to_dict()
        names = sorted(trace.tasks, key=lambda task: -np.nan_to_num(scores.get(task, np.nan), nan=-1.0))
    elif asked.rows != "recorded":
        names = _by_metric(trace.tasks, asked, special=special)
    return Ordered(
        names=[task for task in names if task in shown],
        clustered=found if asked.rows == "clustered" else None,
        waits=asked.rows in _CLUSTERED_ROWS and found is None,
    )


def _types_in_order(trace: RoutingTrace, asked: Asked, *, special: xr.Dataset) -> Sequence[str]:
    names = list(dict.fromkeys(trace.task_types.values()))
    return _by_metric(names, asked, special=special) if asked.rows in ("strength", "even") else names


def _by_metric(names: Sequence[str], asked: Asked, *, special: xr.Dataset) -> list[str]:
    """Those with the clearest preference first, or those that use fewest experts."""
    metric = (
        _preference(special).max(("layer", "expert")).fillna(0)
        if asked.rows == "strength"
        else -evenness_of_groups(special["rate"]).fillna(2.0)
    )
    by_name = dict(zip(metric["group"].values.astype(str), metric.to_numpy(), strict=True))
    return sorted(names, key=lambda name: -by_name.get(name, -np.inf))


def experts_in_order(
    trace: RoutingTrace, selection: Selection, asked: Asked, *, special: xr.Dataset, found: Clustered | None
) -> Ordered:
    """The columns: the experts of the selected layers, as the controls order them; `found` is `tree_of_columns`."""
    layers = tuple(selection.layers) or trace.layers
    exists = trace.expert_exists.sel(layer=list(layers)).transpose("layer", "expert").to_numpy()
    plain = [(label, int(expert)) for label, row in zip(layers, exists, strict=True) for expert in np.flatnonzero(row)]
    if asked.columns == "layer":
        return Ordered(names=plain)
    if asked.columns in _CLUSTERED_COLUMNS:
        if found is None:
            return Ordered(names=plain, waits=True)
        if asked.columns == "clustered":
            return Ordered(names=list(found.names), clustered=found)
        serves = column_types(trace) or {}
        types = [*dict.fromkeys(trace.task_types.values()), None]
        return Ordered(names=sorted(found.names, key=lambda expert: types.index(serves.get(expert))))
    metric = expert_metric(trace, asked.columns, special=special).sel(layer=list(layers))
    table = metric.transpose("layer", "expert").to_numpy()
    at = {label: number for number, label in enumerate(layers)}
    return Ordered(names=sorted(plain, key=lambda expert: -table[at[expert[0]], expert[1]]))


def expert_metric(trace: RoutingTrace, name: str, *, special: xr.Dataset) -> xr.DataArray:
    """What experts are ordered by, the largest first.

    Args:
        trace: the trace.
        name: "strength" for the clearest preference of a task, "load" for the share of the layer's work over the even
            share, "even" for those first that fewest tasks share.
        special: lifts and rates, as `specialization` gives them.

    Returns:
        (layer, expert) · any unit; those never chosen last.
    """
    if name == "strength":
        return _preference(special).max("group").fillna(-1.0)
    if name == "load":
        load = cache.answer(trace, expert_load)
        return (load * load.notnull().sum("expert")).fillna(-1.0)
    return -evenness_of_experts(special["rate"]).fillna(2.0)


def column_types(trace: RoutingTrace) -> dict[Expert, str] | None:
    """The type of task that each expert serves most beyond chance; None where that cannot be told, or not yet."""
    if trace.level == "counts" or len(set(trace.task_types.values())) < 2:
        return None
    if is_large(trace):
        special = tested(trace, over="task_type")
        if not special.attrs["n_permutations"]:
            return None
        table = strongest_of(special)["group"].dropna()
    else:
        table = cache.answer(trace, strongest_groups, over="task_type")["group"].dropna()
    return {(str(layer), int(expert)): str(group) for (layer, expert), group in table.items()}


def _preference(special: xr.Dataset) -> xr.DataArray:
    """How far each cell is from the expert's overall use, in doublings; 0 where chance would do."""
    lift = abs(special["lift"])
    lift = lift.where(lift != np.inf)
    called = special["significant"].astype(bool)
    return lift.where(called, 0.0) if bool(called.any()) else lift
