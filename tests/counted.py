"""Runs of which only counts are left."""

from __future__ import annotations

from analysis.counts import assignment_counts
from routing import RoutingTrace, trace_from_counts


def counted(trace: RoutingTrace, *, with_prompts: bool = True) -> RoutingTrace:
    """The same run as a recording at level "counts" would have left it, or without its prompts, as sums alone."""
    return trace_from_counts(
        assignment_counts(trace, by="task").to_numpy(),
        layer_facts=trace.layer_facts,
        tasks=trace.tasks,
        n_tokens=trace.n_tokens,
        prompts=trace.prompts if with_prompts else None,
    )
