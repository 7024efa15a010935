from __future__ import annotations

import numpy as np

from analysis.differential import differential
from figures.differential import differential_heatmap
from routing import Selection
from tests.traces import trace_of


def test_an_expert_that_one_set_never_uses_lies_at_the_end_of_the_scale():
    # The first four prompts choose 0 or 1, the others 1 or 2; nobody chooses 3.
    chosen = [[0], [1]] * 4 + [[1], [2]] * 4
    trace = trace_of(chosen, n_experts=4, prompts=np.repeat(range(8), 2), tasks=["a"] * 4 + ["b"] * 4)
    table = differential(trace, Selection(tasks=("a",)), other=Selection(tasks=("b",)))
    figure = differential_heatmap(table, exists=trace.expert_exists)
    shown = [
        np.asarray(each.z, dtype=float)[0]
        for each in figure.data
        if each.type == "heatmap" and each.customdata is not None
    ]
    row = np.fmax.reduce(shown)
    assert row[0] == -row[2] > 0
    assert row[1] == 0
    assert np.isnan(row[3])
