"""Where the router decides once a task, a task is one observation, however many prompts repeat it."""

import numpy as np
import pytest

import analysis
from analysis.rates import decided_by_task
from app.views.tasks import sentences as task_sentences
from routing import Selection
from tests.adapter_traces import TYPES, hyper_moe_trace, pha_trace, task_moe_trace


@pytest.mark.parametrize("soft", [False, True])
def test_it_is_seen_in_the_routes(soft):
    trace = task_moe_trace(soft=soft)
    assert decided_by_task(trace)
    assert decided_by_task(trace.select(Selection(tasks=trace.tasks[:2])))
    assert not decided_by_task(pha_trace())
    assert not decided_by_task(hyper_moe_trace())
    assert not decided_by_task(task_moe_trace(n_prompts_a_task=1))  # nothing is repeated


def test_more_prompts_of_a_task_make_nothing_more_certain():
    few, many = (task_moe_trace(specialists={}, n_prompts_a_task=n) for n in (3, 30))
    for trace in (few, many):
        found = analysis.specialization(trace, n_permutations=100)
        assert found["p_value"].isnull().all()
        assert not found["significant"].any()
        assert analysis.specialists(trace, n_permutations=50).empty
        assert analysis.task_information(trace, n_permutations=50)["p_value"].isna().all()
        assert analysis.expert_profile(trace, layer="enc00", expert=0).by_task["rate_low"].isna().all()
    widths = [
        (table["cv_high"] - table["cv_low"]).to_numpy()
        for table in (analysis.load_balance(trace, n_bootstrap=200) for trace in (few, many))
    ]
    np.testing.assert_allclose(*widths)
    assert (widths[0] > 0.05).all()
    # With one prompt a task, prompts are tasks: the same intervals.
    single = analysis.load_balance(task_moe_trace(specialists={}, n_prompts_a_task=1), n_bootstrap=200)
    assert (single["cv_high"] - single["cv_low"]).mean() == pytest.approx(widths[0].mean(), rel=0.35)


def test_types_are_tested_by_dealing_tasks():
    p = []
    for seed in range(12):
        found = analysis.specialization(
            task_moe_trace(seed=seed, specialists={}), over="task_type", n_permutations=99, seed=seed
        )
        assert found.attrs["units"] == "task"
        p.append(float(np.nanmin(found["q_value"])))
        assert np.isfinite(
            analysis.task_information(task_moe_trace(), over="task_type", n_permutations=20)["p_value"]
        ).all()
    assert np.mean(np.array(p) <= 0.05) <= 0.25
    planted = task_moe_trace(strength=8.0, n_tasks_a_type=8, n_experts=6)
    found = analysis.specialization(planted, over="task_type", n_permutations=500)
    assert found["p_value"].sel(group=TYPES[0], layer="enc00", expert=0) < 0.01


def test_idle_experts_are_judged_by_tasks():
    trace = task_moe_trace(specialists={name: (0, 0) for name in TYPES}, strength=50.0)
    idle = analysis.idle_experts(trace).query("layer == 'enc00'")
    assert idle["n_prompts"].tolist() == [16, 16]
    np.testing.assert_allclose(idle["chance_idle_prompts"], (2 / 3) ** 16)


def test_it_is_said():
    trace = task_moe_trace()
    assert "once a task" in task_sentences.of_lift(analysis.specialization(trace, n_permutations=10))
    over_types = task_sentences.of_lift(analysis.specialization(trace, over="task_type", n_permutations=10))
    assert "tasks shuffled among types" in over_types
