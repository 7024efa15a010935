"""How often each expert was chosen: the table that most of this room is built on."""

from __future__ import annotations

import numpy as np
import xarray as xr

from analysis.measure import measure_of
from analysis.scan import By, Phase, count_table
from routing.trace import RoutingTrace

__all__ = ["assignment_counts", "routed_tokens"]


def assignment_counts(trace: RoutingTrace, *, by: By | None = None, phase: Phase | None = None) -> xr.DataArray:
    """How often each expert was chosen.

    An assignment is a selected rank of a token; runners-up and what a layer did not route do not count. What
    a capacity dropped does: it was the router's decision. The coordinate `exists` tells an idle expert from
    one that its layer does not have.

    Where every layer always selects all its experts, the weights that they were given are added up instead, exactly;
    `attrs["measure"]` says which of the two it is.

    Args:
        trace: the trace.
        by: group of tokens along a first dimension of that name; None counts all together.
        phase: only tokens of this phase.

    Returns:
        ([by,] layer, expert) · assignments · 0 and up, sums to routed tokens × top-k over expert.

    Raises:
        SelectionError: `by` or `phase` names something else than what it may.
        TraceError: a trace of level "counts" is asked for prompts or phases.
    """
    table = count_table(trace, by=by, phase=phase)
    measure = measure_of(trace)
    counts = xr.DataArray(
        table.assignments_GLE,
        dims=(by or "all", "layer", "expert"),
        coords={by or "all": list(table.groups), **_coords(trace)},
        name="assignments",
        attrs={"unit": measure, "measure": measure},
    )
    return counts if by else counts.isel(all=0, drop=True)


def routed_tokens(trace: RoutingTrace, *, by: By | None = None, phase: Phase | None = None) -> xr.DataArray:
    """How many tokens each layer routed.

    Layers differ where a model has several stacks: an encoder's token passes no decoder layer.

    Returns:
        ([by,] layer) · tokens · 0 and up.

    Raises:
        SelectionError: `by` or `phase` names something else than what it may.
        TraceError: a trace of level "counts" is asked for prompts or phases.
    """
    table = count_table(trace, by=by, phase=phase)
    tokens = xr.DataArray(
        table.tokens_GL,
        dims=(by or "all", "layer"),
        coords={by or "all": list(table.groups), "layer": list(trace.layers)},
        name="tokens",
        attrs={"unit": "tokens"},
    )
    return tokens if by else tokens.isel(all=0, drop=True)


def _coords(trace: RoutingTrace) -> dict[str, object]:
    return {
        "layer": list(trace.layers),
        "expert": np.arange(trace.n_experts),
        "exists": (("layer", "expert"), trace.expert_exists.to_numpy()),
    }
