"""What the Load view asks, as tables that can travel from a process of their own."""

from __future__ import annotations

import json

import pandas as pd

from analysis.balance_scales import balance_scales, load_by_position
from analysis.convergence import load_convergence
from analysis.health import load_health
from analysis.nulls import q_values
from analysis.pass_load import pass_load, worst_passes
from analysis.passes import BatchOrder, batches_of
from routing import RoutingTrace

__all__ = ["convergence_tables", "pass_tables", "scale_tables", "verdict_tables"]

Tables = dict[str, pd.DataFrame]

_VERDICT = ("check", "level", "sentence", "threshold", "reason", "query")


def verdict_tables(trace: RoutingTrace, *, batch_size: int) -> Tables:
    """Table "verdicts": those of `load_health`, in its order; query is JSON."""
    rows = [
        (each.check, each.level, each.sentence, each.threshold, each.reason, json.dumps(each.selection_query))
        for each in load_health(trace, batch_size=batch_size)
    ]
    return {"verdicts": pd.DataFrame(rows, columns=list(_VERDICT))}


def pass_tables(trace: RoutingTrace, *, batch_size: int, order: BatchOrder) -> Tables:
    """Tables "ranges": `worst_passes` with q over layers; "passes": `pass_load`; "prompts": the batch of each."""
    batch = batches_of(trace, batch_size=batch_size, order=order)
    ranges = worst_passes(trace, batch_size=batch_size, order=order).reset_index()
    # Each phase asks of every layer at once.
    ranges["q_value"] = ranges.groupby("phase", sort=False)["p_value"].transform(lambda each: q_values(each.to_numpy()))
    return {
        "ranges": ranges,
        "passes": pass_load(trace, batch_size=batch_size, order=order).reset_index(),
        "prompts": pd.DataFrame({"prompt": trace.prompts["prompt"].to_numpy(), "batch": batch}),
    }


def scale_tables(trace: RoutingTrace, *, batch_size: int) -> Tables:
    """Tables "positions": `load_by_position` of layers; "scales": `balance_scales`."""
    positions = load_by_position(trace)
    by_layer = [name for name in positions.data_vars if "expert" not in positions[name].dims]
    return {
        "positions": positions[by_layer].to_dataframe().reset_index(),
        "scales": balance_scales(trace, batch_size=batch_size).reset_index(),
    }


def convergence_tables(trace: RoutingTrace) -> Tables:
    """Table "convergence": `load_convergence`."""
    return {"convergence": load_convergence(trace).reset_index()}
