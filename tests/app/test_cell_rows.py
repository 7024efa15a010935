from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.specialization import specialization
from app.views.tasks.cell_rows import cell_rows
from tests.traces import planted_trace

TRACE = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=4, n_layers=3)
SPECIAL = specialization(TRACE, over="task", n_permutations=50)
EXPERTS = [(label, expert) for label in TRACE.layers for expert in range(TRACE.n_experts)]


def test_rows_are_the_cells_that_are_shown_those_beyond_chance_first():
    rows = cell_rows(SPECIAL, groups=TRACE.tasks, experts=EXPERTS)
    assert len(rows) == SPECIAL["rate"].notnull().sum()
    assert rows["significant"].is_monotonic_decreasing
    strength = rows.loc[rows["significant"], "lift"].abs().replace(np.inf, np.nan).dropna()
    assert strength.is_monotonic_decreasing
    for row in rows.sample(20, random_state=0).itertuples():
        cell = SPECIAL.sel(group=row.task, layer=row.layer, expert=row.expert)
        np.testing.assert_allclose([row.rate, row.lift, row.q_value], [cell["rate"], cell["lift"], cell["q_value"]])
        assert row.task_type == TRACE.task_types[row.task]


def test_a_part_has_the_rows_of_its_cells_alone_in_whatever_order_they_stand():
    part = [("L02", 3), ("L00", 1)]
    rows = cell_rows(SPECIAL, groups=TRACE.tasks[1:2], experts=part)
    known = SPECIAL["rate"].sel(group=TRACE.tasks[1]).to_series().dropna().index
    assert set(zip(rows["layer"], rows["expert"], strict=True)) == {each for each in part if each in known}
    pd.testing.assert_frame_equal(rows, cell_rows(SPECIAL, groups=TRACE.tasks[1:2], experts=part[::-1]))


def test_no_columns_make_a_table_without_rows():
    assert cell_rows(SPECIAL, groups=TRACE.tasks, experts=[]).empty
