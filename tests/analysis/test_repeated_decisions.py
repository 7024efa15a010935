"""Where a router decides once a task, prompts are repeats, and nothing is claimed of them."""

from __future__ import annotations

import numpy as np
import pytest

import analysis
from analysis.jackknife import blocks_of_prompts
from analysis.rates import draws_of_prompts
from tests.adapter_traces import task_moe_trace
from tests.traces import planted_trace

TRACE = task_moe_trace(seed=0)
HALF = np.arange(TRACE.n_prompts) % 2 == 0


@pytest.mark.parametrize(
    "table",
    [
        lambda: analysis.differential(TRACE, HALF),
        lambda: analysis.prompt_correlation(TRACE).to_dataframe(),
        lambda: analysis.split_half(TRACE),
        lambda: analysis.controlled_specialization(TRACE, tokens_a_prompt=1).to_dataframe(),
        lambda: analysis.load_convergence(TRACE),
        lambda: analysis.worst_passes(TRACE),
        lambda: analysis.routing_distance(TRACE, TRACE),
    ],
)
def test_no_p_value_is_made_of_repeats(table):
    assert table()["p_value"].isna().all()


def test_blocks_hold_whole_tasks():
    block, _ = blocks_of_prompts(TRACE, n_blocks=4, seed=0)
    assert all(len(set(block[TRACE.task_of_prompt == task])) == 1 for task in range(len(TRACE.tasks)))


def test_prompts_that_were_routed_one_by_one_are_drawn():
    assert draws_of_prompts(planted_trace(seed=0, n_tasks=2), 7) == 7
    assert draws_of_prompts(TRACE, 7) == 0
