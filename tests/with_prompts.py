"""Runs that were routed alike, and of which other things are known."""

from __future__ import annotations

import numpy as np

from routing import RoutingTrace


def with_prompts(trace: RoutingTrace, *, scores: np.ndarray | None = None, **columns) -> RoutingTrace:
    """The same routing with other columns in the table of prompts, or other scores of experts."""
    return RoutingTrace.from_arrays(
        trace.experts.values,
        layer_facts=trace.layer_facts,
        tokens=trace.tokens,
        prompts=trace.prompts.assign(**columns),
        scores=trace.scores.values if scores is None else scores,
        weights=trace.weights.values,
    )
