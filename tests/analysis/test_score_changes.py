"""Changes of scores, beside the literal form."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.score_changes import score_changes
from routing import RoutingTrace
from tests.traces import null_trace
from tests.with_prompts import with_prompts


def scored(scores: dict[str, float | None], *, order: list[int]) -> RoutingTrace:
    trace = null_trace(seed=0, n_tasks=2, n_prompts_a_task=len(scores) // 2)
    names = list(scores)
    return with_prompts(trace, prompt=[names[place] for place in order], score=[scores[names[at]] for at in order])


def test_prompts_are_matched_by_name_whatever_their_order_and_who_else_is_there():
    rng = np.random.default_rng(0)
    one = {f"q{number}": float(rng.random()) for number in range(10)}
    two = {f"q{number}": float(rng.random()) for number in range(4, 14)}
    one["q5"], two["q7"] = None, None
    before, after = scored(one, order=list(range(10))), scored(two, order=rng.permutation(10).tolist())
    table = score_changes(before, after, n_bootstrap=0)
    task_of = after.prompts.set_index("prompt")["task"].to_dict()
    both = [name for name in after.prompts["prompt"] if one.get(name) is not None and two[name] is not None]
    for task in after.tasks:
        changes = [two[name] - one[name] for name in both if task_of[name] == task]
        assert table.loc[task, "n_prompts"] == len(changes)
        assert table.loc[task, "difference"] == pytest.approx(np.mean(changes))
        assert table.loc[task, "n_up"] == sum(change > 0 for change in changes)
    assert table.attrs["overall"]["n_prompts"] == len(both) == 4
