"""Generated adapters as rows of numbers, and which task uses each most.

Legend: A adapter drawn, D task.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from analysis.token_sample import stratified_rows
from routing.errors import SelectionError, TraceError
from routing.trace import RoutingTrace

__all__ = ["adapter_signatures"]


def adapter_signatures(
    trace: RoutingTrace, *, values: str = "parameters", most_items: int = 4000, seed: int = 0
) -> xr.DataArray:
    """One row a generated adapter, made of its parameters or of what it was made from.

    Of more than `most_items`, a seeded draw with the same number from each site, as far as it has so many: `weight`
    says how many adapters each one stands for. Items carry `adapter` (row of `trace.adapters.table`), `site`, `key`,
    `n_uses`, and of the rows that used it the most common `task`, that task's share `task_share` and its type.

    Args:
        trace: a trace with adapters.
        values: "parameters", or the name of a conditioning vector, such as "selection_embedding".
        most_items: most adapters to read.
        seed: of the draw.

    Returns:
        (item, feature) · parameter · any; 0 beyond the end of a smaller site's adapter.

    Raises:
        SelectionError: the adapters hold no such values.
        TraceError: the trace holds no adapters.
    """
    held = trace.adapters
    if held is None:
        msg = "This trace holds no generated adapters. Take one of a model that makes them, such as HyperMoE or PHA."
        raise TraceError(msg)
    names = ("parameters", *held.conditioning_rows)
    if values not in names:
        msg = f"Adapters are described by {', '.join(names)}, not by {values!r}. Correct `values`."
        raise SelectionError(msg)
    table = held.table
    site_number = pd.factorize(table["site"])[0] if len(table) else np.zeros(0, np.int64)
    rows, weight = stratified_rows(site_number, n_rows=most_items, seed=seed)
    source = held.parameter_rows if values == "parameters" else held.conditioning_rows[values]
    found = np.nan_to_num(np.asarray(source.take(rows), dtype=float))
    n_uses_AD = _uses_by_task(trace, rows, n_adapters=len(table))
    total = n_uses_AD.sum(axis=1)
    most = n_uses_AD.argmax(axis=1) if n_uses_AD.shape[1] else np.zeros(len(rows), np.int64)
    task = [trace.tasks[number] if used else None for number, used in zip(most, total, strict=True)]
    picked = table.iloc[rows]
    items = {
        "item": [f"{site} · {key}" for site, key in zip(picked["site"], picked["key"], strict=True)],
        "adapter": rows,
        "site": picked["site"].to_numpy(dtype=object),
        "key": picked["key"].to_numpy(dtype=object),
        "n_uses": picked["n_uses"].to_numpy(),
        "weight": weight,
        "task": np.array(task, dtype=object),
        "task_share": np.where(total > 0, n_uses_AD.max(axis=1, initial=0) / np.maximum(total, 1), np.nan),
        "task_type": np.array([None if each is None else trace.task_types[each] for each in task], dtype=object),
    }
    coords = {name: ("item", each) for name, each in items.items() if name != "item"}
    projected = held.projected and values == "parameters"
    return xr.DataArray(
        found,
        dims=("item", "feature"),
        coords={"item": items["item"], "feature": np.arange(found.shape[1]), **coords},
        attrs={"unit": "parameter", "of": "adapter", "values": values, "projected": projected},
    )


def _uses_by_task(trace: RoutingTrace, rows: np.ndarray, *, n_adapters: int) -> np.ndarray:
    """(A, D) int64, rows of each task that used each drawn adapter."""
    n_tasks = len(trace.tasks)
    place = np.full(n_adapters, -1)
    place[rows] = np.arange(len(rows))
    uses = np.zeros(len(rows) * n_tasks, np.int64)
    for chunk in trace.chunks(fields=("adapter_index",)) if len(rows) else ():
        if chunk.adapter_index is None:
            break
        index, task = chunk.adapter_index, np.broadcast_to(chunk.task[:, None], chunk.adapter_index.shape)
        used = (index >= 0) & (task >= 0)
        drawn = place[index[used]]
        cell = drawn * n_tasks + task[used].astype(np.int64)
        uses += np.bincount(cell[drawn >= 0], minlength=len(uses))
    return uses.reshape(len(rows), n_tasks)
