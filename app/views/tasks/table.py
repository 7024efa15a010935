"""Which rows and columns the task heatmap shows, in which order, and which part of them is zoomed into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from analysis.scores import task_scores
from app import cache
from app.components.plot_bridge import Range
from app.questions import TaskOrder, expert_order, task_order
from app.views.map.kept import strongest_groups
from figures.cells import Cells
from routing import RoutingTrace, Selection

__all__ = ["COLUMNS", "ROWS", "Asked", "Window", "column_types", "experts_in_order", "groups_in_order", "tree"]

Expert = tuple[str, int]

ROWS = {
    "clustered": "clustered",
    "type": "by type",
    "strength": "by preference",
    "score": "by score",
    "recorded": "recorded",
}
COLUMNS = {
    "layer": "by layer",
    "clustered": "clustered",
    "type": "by type served",
    "strength": "by preference",
}


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


def tree(trace: RoutingTrace, selection: Selection, asked: Asked) -> TaskOrder:
    """Tasks in an order in which neighbors use the experts alike."""
    return cache.answer(trace, task_order, values=asked.values, layers=tuple(selection.layers))


def groups_in_order(trace: RoutingTrace, selection: Selection, asked: Asked, *, special: xr.Dataset) -> list[str]:
    """The rows: selected tasks, or their types, as the controls order them."""
    shown = set(selection.tasks or trace.tasks)
    if asked.over == "task_type":
        return list(dict.fromkeys(trace.task_types[task] for task in trace.tasks if task in shown))
    names: Sequence[str]
    if asked.rows == "recorded":
        names = trace.tasks
    elif asked.rows == "strength":
        strength = _preference(special).max(("layer", "expert")).fillna(0)
        by_name = dict(zip(strength["group"].values.astype(str), strength.to_numpy(), strict=True))
        names = sorted(trace.tasks, key=lambda task: -by_name.get(task, 0.0))
    elif asked.rows == "score":
        scores = cache.answer(trace, task_scores)["score"].to_dict()
        names = sorted(trace.tasks, key=lambda task: -np.nan_to_num(scores.get(task, np.nan), nan=-1.0))
    else:
        names = tree(trace, selection, asked).names
        if asked.rows == "type":
            types = list(dict.fromkeys(trace.task_types.values()))
            names = sorted(names, key=lambda task: types.index(trace.task_types[task]))
    return [task for task in names if task in shown]


def experts_in_order(trace: RoutingTrace, selection: Selection, asked: Asked, *, special: xr.Dataset) -> list[Expert]:
    """The columns: the experts of the selected layers, as the controls order them."""
    layers = tuple(selection.layers) or trace.layers
    exists = trace.expert_exists.sel(layer=list(layers)).transpose("layer", "expert").to_numpy()
    plain = [(label, int(expert)) for label, row in zip(layers, exists, strict=True) for expert in np.flatnonzero(row)]
    if asked.columns == "layer":
        return plain
    if asked.columns == "strength":
        table = _preference(special).max("group").fillna(0).transpose("layer", "expert")
        at = {str(label): number for number, label in enumerate(table["layer"].values)}
        strength = table.to_numpy()
        return sorted(plain, key=lambda expert: -strength[at[expert[0]], expert[1]])
    clustered = list(cache.answer(trace, expert_order, values=asked.values, layers=tuple(selection.layers)).experts)
    if asked.columns == "clustered":
        return clustered
    serves = column_types(trace) or {}
    types = [*dict.fromkeys(trace.task_types.values()), None]
    return sorted(clustered, key=lambda expert: types.index(serves.get(expert)))


def column_types(trace: RoutingTrace) -> dict[Expert, str] | None:
    """The type of task that each expert serves most beyond chance; None where that cannot be told."""
    if trace.level == "counts" or len(set(trace.task_types.values())) < 2:
        return None
    table = cache.answer(trace, strongest_groups, over="task_type")["group"].dropna()
    return {(str(layer), int(expert)): str(group) for (layer, expert), group in table.items()}


def _preference(special: xr.Dataset) -> xr.DataArray:
    """How far each cell is from the expert's overall use, in doublings; 0 where chance would do."""
    lift = abs(special["lift"])
    lift = lift.where(lift != np.inf)
    called = special["significant"].astype(bool)
    return lift.where(called, 0.0) if bool(called.any()) else lift
