from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from analysis.correctness import correctness_link
from analysis.differential import differential, paired_differential
from analysis.nulls import PooledNull
from analysis.stratified import deal_labels, turn_pairs
from routing import RoutingTrace, Selection
from routing.errors import SelectionError, TraceError
from tests.traces import null_trace, planted_trace, random_trace, trace_of
from tests.with_prompts import with_prompts


def test_differences_by_hand():
    # Rates of expert 0: p0 1, p1 ½, p2 0, p3 0 → ¾ against 0. Spread within: (⅛ + 0) / 2 degrees of freedom.
    trace = trace_of(
        [[0], [0], [0], [1], [1], [1], [1], [1]], n_experts=2, prompts=[0, 0, 1, 1, 2, 2, 3, 3], tasks=("a",) * 4
    )
    table = differential(trace, ["p0", "p1"], n_permutations=0).set_index("expert")
    assert table.loc[0, ["rate_one", "rate_other", "difference"]].tolist() == [0.75, 0, 0.75]
    assert table.loc[0, "effect"] == pytest.approx(0.75 / (0.125 / 2) ** 0.5)
    error = (0.125 / 2) ** 0.5
    assert table.loc[0, "difference_low"] == pytest.approx(0.75 - 1.96 * error, abs=1e-3)
    assert table.loc[1, "difference"] == -0.75
    assert table["p_value"].isna().all()


def test_z_is_exact_and_p_is_that_of_all_deals():
    values = np.array([[3.0], [1.0], [4.0], [1.5], [0.0]])
    label = np.array([1.0, 0, 1, 0, 0])
    totals = [values[list(pair), 0].sum() - 2 / 5 * values.sum() for pair in itertools.combinations(range(5), 2)]
    pooled = PooledNull()
    tested = deal_labels(values, label, np.zeros(5), n_permutations=4000, seed=0, pooled=pooled)
    assert tested.total[0] == pytest.approx(7 - 2 / 5 * 9.5)
    assert tested.z[0] == pytest.approx(tested.total[0] / np.std(totals))
    share = np.mean(np.abs(totals) >= abs(tested.total[0]) - 1e-9)
    assert tested.n_exceeding[0] / 4000 == pytest.approx(share, abs=0.03)


def test_labels_are_dealt_within_groups():
    # The label follows the group, the values too: within groups there is nothing left.
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 20)
    label = np.concatenate([np.arange(20) < 4, np.arange(20) < 16]).astype(float)
    values = (group + rng.normal(0, 0.1, 40))[:, None]
    pooled = PooledNull()
    alone = deal_labels(values, label, np.zeros(40), n_permutations=500, seed=0, pooled=pooled)
    within = deal_labels(values, label, group, n_permutations=500, seed=0, pooled=pooled)
    assert abs(alone.z[0]) > 3
    assert abs(within.z[0]) < 2.5


def test_pairs_by_all_turns():
    change = np.array([[1.0], [2.0], [-0.5]])
    totals = [change[:, 0] @ signs for signs in itertools.product([-1, 1], repeat=3)]
    tested = turn_pairs(change, n_permutations=4000, seed=0, pooled=PooledNull())
    assert tested.z[0] == pytest.approx(2.5 / np.std(totals))
    share = np.mean(np.abs(totals) >= 2.5 - 1e-9)
    assert tested.n_exceeding[0] / 4000 == pytest.approx(share, abs=0.03)


def test_the_expert_of_a_task_leads_and_its_layer_mates_pay():
    trace = planted_trace(seed=1, n_tasks=4, n_prompts_a_task=12)
    table = differential(trace, Selection(tasks=("spans",)), other=Selection(tasks=("facts",)))
    top = table.iloc[:2]
    assert set(zip(top["layer"], top["expert"], strict=True)) == {("L03", 0), ("L03", 2)}
    assert top.set_index("expert")["difference"].gt(0).to_dict() == {0: True, 2: False}
    assert table.loc[table["significant"], "layer"].unique().tolist() == ["L03"]
    assert table.attrs["unit"]["effect"]


def test_swapping_the_sets_turns_the_signs():
    trace = planted_trace(seed=2, n_tasks=3)
    mask = (trace.prompts["task"] == "spans").to_numpy()
    one, other = differential(trace, mask), differential(trace, ~mask)
    key = ["layer", "expert"]
    both = one.merge(other, on=key)
    assert both["difference_x"].tolist() == pytest.approx((-both["difference_y"]).tolist())
    assert both["z_x"].tolist() == pytest.approx((-both["z_y"]).tolist())


def test_a_different_mix_of_tasks_is_no_difference_within_tasks():
    trace = planted_trace(seed=3, n_tasks=4, n_prompts_a_task=16)
    rng = np.random.default_rng(0)
    share = trace.prompts["task"].map({"spans": 0.9, "sentiment": 0.5, "facts": 0.3, "names": 0.1}).to_numpy()
    mask = rng.random(trace.n_prompts) < share
    assert differential(trace, mask)["significant"].any()
    assert not differential(trace, mask, within="task")["significant"].any()


def test_sets_that_cannot_be_compared_are_refused():
    trace = random_trace(seed=0)
    for one, other in ((["p0"], ["p0", "p1"]), ([], None), (["nobody"], None), (np.ones(3, bool), None)):
        with pytest.raises(SelectionError):
            differential(trace, one, other=other)
    with pytest.raises(SelectionError, match="luck"):
        differential(trace, ["p0"], within="luck")


def test_an_expert_of_right_answers_is_found_within_tasks():
    trace = null_trace(seed=4, n_tasks=3, n_prompts_a_task=40, prompt_effect=1.0)
    first = (trace.experts.values[:, 2, :2] == 5).any(axis=1)
    rate = pd.Series(first).groupby(trace.tokens["prompt"].to_numpy()).mean().to_numpy()
    rng = np.random.default_rng(0)
    base = np.array([0.2, 0.5, 0.8])[trace.task_of_prompt]
    right = (rng.random(120) < np.clip(base + 1.5 * (rate - rate.mean()), 0, 1)).astype(float)
    table = correctness_link(with_prompts(trace, score=right), phase=None)
    assert (table.loc[0, "layer"], table.loc[0, "expert"]) == ("L02", 5)
    assert table.loc[0, "r"] > 0.2
    assert table.loc[0, "difference_low"] > 0
    assert table["significant"].sum() <= 3
    assert table.attrs["tasks"] == ["spans", "sentiment", "facts"]


def test_hard_tasks_do_not_make_their_experts_wrong():
    trace = planted_trace(seed=5, n_tasks=4, n_prompts_a_task=25)
    rng = np.random.default_rng(1)
    right = (rng.random(100) < np.array([0.1, 0.4, 0.6, 0.9])[trace.task_of_prompt]).astype(float)
    assert not correctness_link(with_prompts(trace, score=right))["significant"].any()


def test_tasks_without_right_and_wrong_answers_say_nothing():
    trace = random_trace(seed=6)
    one_sided = with_prompts(trace, score=np.where(trace.task_of_prompt == 0, 1.0, np.nan))
    assert correctness_link(one_sided).empty
    with pytest.raises(TraceError, match="scores"):
        correctness_link(with_prompts(trace, score=np.nan))


def test_pairs_of_two_traces():
    before = null_trace(seed=7, n_prompts_a_task=10, n_layers=2)
    experts = before.experts.values.astype(int).copy()
    rng = np.random.default_rng(0)
    flip = (rng.random(len(experts)) < 0.5) & (experts[:, 1, :2] != 3).all(axis=1)
    experts[flip, 1, 0] = 3
    after = RoutingTrace.from_arrays(
        experts[..., :2],
        layer_facts=before.layer_facts,
        tokens=before.tokens,
        prompts=before.prompts,
    )
    table = paired_differential(before, after, phase=None)
    assert (table.loc[0, "layer"], table.loc[0, "expert"]) == ("L01", 3)
    assert table.loc[0, "difference"] == pytest.approx(flip.mean(), abs=1e-6)
    assert table.loc[0, "rate_one"] - table.loc[0, "rate_other"] == pytest.approx(table.loc[0, "difference"])
    assert not table.loc[table["layer"] == "L00", "significant"].any()
    with pytest.raises(TraceError):
        paired_differential(before, random_trace(seed=0))


def test_nothing_is_called_where_nothing_is():
    p, called = [], 0
    for seed in range(12):
        trace = null_trace(seed=seed, n_prompts_a_task=8, n_layers=2)
        mask = np.random.default_rng(seed).random(trace.n_prompts) < 0.4
        tables = differential(trace, mask, n_permutations=200), correctness_link(trace, n_permutations=200)
        for table in tables:
            p += table["p_value"].tolist()
            called += table["significant"].any()
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert called <= 4
