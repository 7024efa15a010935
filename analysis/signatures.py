"""A thing described by its routing: a row of numbers for each expert, prompt or task."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from analysis.measure import measure_of, rate_unit, share_unit
from analysis.rates import Over, group_rates, lift_of, mean_over_prompts, prompt_rates, type_of_group
from analysis.scan import require_tokens
from routing.errors import SelectionError
from routing.selection import expert_name
from routing.trace import RoutingTrace

__all__ = ["Of", "Values", "complete_items", "signatures"]

Of = Literal["expert", "prompt", "task"]
Values = Literal["lift", "load", "rate"]

_UNITS = {"lift": "log2 ratio", "load": "share of assignments", "rate": "share of tokens"}


def signatures(trace: RoutingTrace, *, of: Of = "expert", values: Values = "lift", over: Over = "task") -> xr.DataArray:
    """One row a thing, made of how it is routed.

    An expert is described by the tasks (or task types) that use it; a prompt or a task by the experts that it uses.
    "rate" is the share of tokens that choose the expert, "load" the share of the layer's assignments, "lift" the
    log2 of the load over the overall load (see `specialization`). Tasks are means over prompts.

    Items carry what names them: `layer` and `expert`; or `task`, `task_type` and `score`; or `task` and
    `task_type`. Features do so too. Experts that do not exist are no items and no features.

    Args:
        trace: the trace.
        of: what the rows are.
        values: what the numbers are.
        over: features of experts: tasks, or task types.

    Returns:
        (item, feature) · as `values` says · lift any, else 0 to 1; NaN for the lift of an expert that was never
        chosen, and where a layer routed nothing.

    Raises:
        SelectionError: `of` or `values` names something else than what it may.
        TraceError: prompts are asked of a trace of level "counts".
    """
    if of not in ("expert", "prompt", "task") or values not in _UNITS:
        msg = (
            f"There are signatures of expert, prompt or task, in lift, load or rate, not of {of!r} in {values!r}. "
            "Correct the names."
        )
        raise SelectionError(msg)
    found = _of_prompts(trace, values=values) if of == "prompt" else _of_groups(trace, of=of, values=values, over=over)
    units = _UNITS | {"rate": rate_unit(trace), "load": share_unit(trace)}
    found.attrs = {
        "unit": units[values],
        "measure": measure_of(trace),
        "of": of,
        "values": values,
        "over": over if of == "expert" else of,
    }
    return found


def complete_items(table: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """The items that have any number, as a matrix without gaps, and their places in the table.

    A gap (a layer that routed nothing of a prompt) is filled with the mean of its feature, so that it says nothing;
    features without any number are left out. Items without any, such as the lift of an idle expert, are too: they
    are not alike, they are unknown.

    Returns:
        (kept item, feature) and (kept item) · the table's unit, and places · any.
    """
    values = np.asarray(table.to_numpy(), dtype=float)
    known = np.isfinite(values)
    kept = np.flatnonzero(known.any(axis=1))
    features = known.any(axis=0)
    values, known = values[np.ix_(kept, features)], known[np.ix_(kept, features)]
    n_known = known.sum(axis=0)
    means = np.where(known, values, 0.0).sum(axis=0) / np.maximum(n_known, 1)
    return np.where(known, values, means), kept


def _of_groups(trace: RoutingTrace, *, of: Of, values: Values, over: Over) -> xr.DataArray:
    over = over if of == "expert" else "task"
    rates = group_rates(trace, over=over)
    values_GLE = _valued(
        rates.rate_GLE, values=values, overall_LE=rates.overall_LE, n_assignments_GL=rates.n_assignments_GL
    )
    layer, expert = np.nonzero(trace.expert_exists.to_numpy())
    table = values_GLE[:, layer, expert]
    types = list(type_of_group(trace, over=over))
    experts = _expert_coords(trace, dim="item" if of == "expert" else "feature")
    if of == "expert":
        groups = {"feature": list(rates.groups), "task_type": ("feature", types)}
        return xr.DataArray(table.T, dims=("item", "feature"), coords={**experts, **groups}, name="signature")
    tasks = {"item": list(rates.groups), "task": ("item", list(rates.groups)), "task_type": ("item", types)}
    return xr.DataArray(table, dims=("item", "feature"), coords={**tasks, **experts}, name="signature")


def _of_prompts(trace: RoutingTrace, *, values: Values) -> xr.DataArray:
    require_tokens(trace, for_what="a signature of prompts")
    exists_LE = trace.expert_exists.to_numpy()
    parts = []
    for block in prompt_rates(trace):
        overall_LE = mean_over_prompts(block.rate_PLE)
        valued = _valued(block.rate_PLE, values=values, overall_LE=overall_LE, n_assignments_GL=block.n_assignments_PL)
        parts.append(valued[:, exists_LE[block.layers]])
    prompts = trace.prompts
    items = {
        "item": prompts["prompt"].to_numpy(dtype=object),
        "task": ("item", prompts["task"].to_numpy(dtype=object)),
        "task_type": ("item", prompts["task_type"].to_numpy(dtype=object)),
        "score": ("item", prompts["score"].to_numpy(dtype=float)),
    }
    return xr.DataArray(
        np.concatenate(parts, axis=1) if parts else np.zeros((len(prompts), 0)),
        dims=("item", "feature"),
        coords={**items, **_expert_coords(trace, dim="feature")},
        name="signature",
    )


def _valued(
    rate_GLE: np.ndarray, *, values: Values, overall_LE: np.ndarray, n_assignments_GL: np.ndarray
) -> np.ndarray:
    if values == "rate":
        return rate_GLE
    if values == "load":
        total = np.nansum(rate_GLE, axis=-1, keepdims=True)
        return rate_GLE / np.where(total > 0, total, np.nan)
    return lift_of(rate_GLE, overall_LE=overall_LE, n_assignments_GL=n_assignments_GL)


def _expert_coords(trace: RoutingTrace, *, dim: str) -> dict[str, object]:
    layer, expert = np.nonzero(trace.expert_exists.to_numpy())
    labels = np.array(trace.layers, dtype=object)[layer]
    known = trace.expert_names
    names = [expert_name(label, int(number), names=known) for label, number in zip(labels, expert, strict=True)]
    return {dim: names, "layer": (dim, labels), "expert": (dim, expert)}
