"""A table of groups × experts arranged as it is drawn: ordered, and pooled where a screen has too few columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

__all__ = ["MOST_COLUMNS", "Cells", "cells_of"]

# A screen has about as many columns of pixels for the cells; more would only be averaged by the eye, wrongly.
MOST_COLUMNS = 1200


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """A table of groups × experts as it is drawn.

    Attributes:
        values: rows × columns, NaN where there is no number.
        source: rows × columns, position in `experts` of what the cell shows: where several experts share a
            column, the one that stands out most in that row.
        muted: rows × columns, which cells recede; None where none does.
        details: rows × columns × numbers that the hover tells of the same cells; None where it tells none.
        groups: names of the rows.
        experts: (layer, expert) of every expert, in the order of the columns.
        columns: position in `experts` of the first expert of each column.
        n_pooled: experts that share a column, 1 where each has its own.
    """

    values: np.ndarray
    source: np.ndarray
    muted: np.ndarray | None
    details: np.ndarray | None
    groups: tuple[str, ...]
    experts: tuple[tuple[str, int], ...]
    columns: np.ndarray
    n_pooled: int

    def at(self, x: float, y: float) -> tuple[str, tuple[str, int]]:
        """Group and expert of the cell at a clicked place."""
        row, column = round(y), round(x)
        return self.groups[row], self.experts[int(self.source[row, column])]


def cells_of(
    table: xr.DataArray,
    *,
    exists: xr.DataArray,
    rows: Sequence[str] | None = None,
    columns: Sequence[tuple[str, int]] | None = None,
    muted: xr.DataArray | None = None,
    details: Sequence[xr.DataArray | tuple[xr.DataArray, Callable[[np.ndarray], np.ndarray]]] = (),
    most_columns: int = MOST_COLUMNS,
) -> Cells:
    """Arrange a table of groups × layers × experts for drawing.

    Args:
        table: (group, layer, expert) · the numbers; the first dimension may have any name.
        exists: (layer, expert) · which experts a layer has.
        rows: order of the groups; that of the table, unless given.
        columns: order of the experts; that of the model, unless given.
        muted: like `table`, which cells recede.
        details: further tables like `table`, for the hover; with a function where the hover tells what that makes of
            the numbers.
        most_columns: beyond this many experts, neighbors share a column.
    """
    group = table.dims[0]
    names = {str(value): number for number, value in enumerate(table[group].values)}
    rows = list(rows) if rows is not None else list(names)
    layers = {str(label): number for number, label in enumerate(table["layer"].values)}
    there = exists.sel(layer=table["layer"]).transpose("layer", "expert").to_numpy()
    if columns is None:
        columns = [(label, int(e)) for label, number in layers.items() for e in np.flatnonzero(there[number])]
    at_row = np.array([names[row] for row in rows], dtype=int)
    at_layer = np.array([layers[layer] for layer, _ in columns], dtype=int)
    at_expert = np.array([expert for _, expert in columns], dtype=int)

    def flat(array: xr.DataArray) -> np.ndarray:
        values = array.transpose(group, "layer", "expert").to_numpy()
        return values[at_row][:, at_layer, at_expert]

    values = flat(table)
    pale = None if muted is None else flat(muted).astype(bool)
    n_pooled = max(1, -(-len(columns) // most_columns))
    starts = np.arange(0, len(columns), n_pooled)
    if n_pooled == 1:
        source = np.broadcast_to(np.arange(len(columns)), values.shape)
    else:
        source = _most_telling(values, pale, starts=starts, n_pooled=n_pooled)
        values = np.take_along_axis(values, source, axis=1)
        pale = None if pale is None else np.take_along_axis(pale, source, axis=1)
    # Of what the hover tells, only what is drawn is looked up.
    at_cell = at_row[:, None], at_layer[source], at_expert[source]
    told = []
    for each in details:
        source_of, made = each if isinstance(each, tuple) else (each, None)
        drawn = source_of.transpose(group, "layer", "expert").to_numpy()[at_cell]
        told.append(drawn if made is None else made(drawn))
    return Cells(
        values=values,
        source=source,
        muted=pale,
        details=np.stack(told, axis=-1).astype(np.float32) if told else None,
        groups=tuple(rows),
        experts=tuple(columns),
        columns=starts,
        n_pooled=n_pooled,
    )


def _most_telling(values: np.ndarray, pale: np.ndarray | None, *, starts: np.ndarray, n_pooled: int) -> np.ndarray:
    """In each row, which expert of a shared column stands out most: a plain mean would hide specialists."""
    weight = np.where(np.isfinite(values), np.abs(values), -1.0)
    if pale is not None:
        weight = np.where(pale, weight * 1e-6, weight)
    padding = len(starts) * n_pooled - values.shape[1]
    weight = np.pad(weight, ((0, 0), (0, padding)), constant_values=-2.0)
    within = weight.reshape(len(values), len(starts), n_pooled).argmax(axis=2)
    return starts + within
