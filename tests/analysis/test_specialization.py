from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from analysis.information import task_information
from analysis.nulls import label_permutations, q_values
from analysis.specialization import specialization
from routing import RoutingTrace
from routing.errors import SelectionError, TraceError
from routing.memory import trace_from_counts
from tests.traces import encoder_decoder_trace, facts_of, null_trace, planted_trace, random_trace, trace_of, traces


def test_rate_lift_and_z_by_hand():
    # top-1 of 2; prompts a: E0 E0 | b: E0 E1 | c: E1 E1, tasks s s t. Prompt rates of E0: 1, 1/2, 0
    #   rate of s 3/4, of t 0, overall 1/2.  Lift of s: N = 4, E = 2: (4·¾/½ + 2)/(4 + 2) = 8/6 → log2(4/3)
    #   t: N = 2: (0 + 2)/(2 + 2) = 1/2 → −1
    #   variance of (1, ½, 0) = ¼; mean of 2 of 3: ¼ · ½ · (1 − 2/3) = 1/24 → z of s = ¼ · √24; of t: −½/√(¼·1·⅔)
    trace = trace_of([[0], [0], [0], [1], [1], [1]], n_experts=2, prompts=[0, 0, 1, 1, 2, 2], tasks=("s", "s", "t"))
    found = specialization(trace, n_permutations=50).sel(layer="L00", expert=0)
    assert found["rate"].values.tolist() == [0.75, 0]
    assert found["overall"] == 0.5
    assert found["lift"].values.tolist() == pytest.approx([np.log2(4 / 3), -1])
    assert found["z"].values.tolist() == pytest.approx([0.25 * 24**0.5, -0.5 / (1 / 6) ** 0.5])


def test_long_prompts_do_not_outvote_short_ones():
    # task s: a prompt of six tokens on E0 and one of a single token on E1 → rate ½, not 6/7
    trace = trace_of([[0]] * 6 + [[1], [0]], n_experts=2, prompts=[0] * 6 + [1, 2], tasks=("s", "s", "t"))
    assert specialization(trace, n_permutations=0)["rate"].sel(group="s", expert=0) == 0.5


@settings(max_examples=10, deadline=None)
@given(trace=traces())
def test_permutations_agree_with_the_obvious_version(trace):
    found = specialization(trace, n_permutations=30, seed=3)
    assert trace.experts is not None
    ids, prompt = trace.experts.values, trace.tokens["prompt"].to_numpy()
    for number, facts in enumerate(trace.layer_facts):
        rates = np.full((trace.n_prompts, trace.n_experts), np.nan)
        for each in set(prompt.tolist()):
            chosen = ids[prompt == each, number, : facts.top_k]
            amount = trace.weights.values[prompt == each, number, : facts.top_k].astype(float)
            amount = amount if trace.dense_routing else np.ones_like(amount)
            rates[each] = [((chosen == e) * amount).sum(axis=1).mean() for e in range(trace.n_experts)]
        routed = np.isfinite(rates).all(axis=1)
        rates, labels = rates[routed], trace.task_of_prompt[routed]
        for group, name in enumerate(found["group"].values):
            inside = labels == group
            if not inside.any() or inside.all() or len(labels) < 2:
                assert found["z"].sel(group=name, layer=facts.label).isnull().all()
                continue
            observed = np.abs(rates[inside].mean(axis=0) - rates.mean(axis=0))
            assert np.allclose(found["rate"].sel(group=name, layer=facts.label), rates[inside].mean(axis=0))
            permuted = np.concatenate(list(label_permutations(labels, n_permutations=30, seed=3)))
            reached = sum(
                np.abs(rates[row == group].mean(axis=0) - rates.mean(axis=0)) >= observed - 1e-9 for row in permuted
            )
            own = (1 + reached) / 31
            p = found["p_value"].sel(group=name, layer=facts.label).values
            assert (p <= own + 1e-12).all()
            assert np.allclose(p[reached >= 10], own[reached >= 10])


def test_planted_specialists_are_found():
    trace = planted_trace(seed=5, n_tasks=4, strength=3.0)
    found = specialization(trace)
    hits = found["significant"].stack(cell=("group", "layer", "expert"))
    named = {cell for cell, hit in zip(hits["cell"].values, hits.values, strict=True) if hit}
    planted = {(task, "L03", number) for number, task in enumerate(trace.tasks)}
    assert planted <= named
    assert len(named - planted) <= 8  # experts that a task chooses less because its own took their place
    assert (found["lift"].values[[0, 1, 2, 3], 3, [0, 1, 2, 3]] > 0.5).all()


def test_nothing_is_found_where_nothing_is():
    false_alarms = [
        bool(specialization(null_trace(seed=seed, n_tasks=4, with_logits=False), seed=seed)["significant"].any())
        for seed in range(20)
    ]
    assert sum(false_alarms) <= 4  # binomial(20, 0.05): more than 4 in one of 400 such runs


def test_p_values_are_spread_evenly_where_nothing_is():
    below = [
        float((specialization(null_trace(seed=seed, with_logits=False), seed=seed)["p_value"] < 0.1).mean())
        for seed in range(10)
    ]
    assert 0.07 < np.mean(below) < 0.13


def test_experts_have_no_order():
    trace = planted_trace(seed=6, n_tasks=3, n_prompts_a_task=6)
    assert trace.experts is not None
    relabel = np.array([3, 1, 0, 2, 7, 6, 5, 4])
    other = RoutingTrace.from_arrays(
        relabel[trace.experts.values.astype(int)],
        layer_facts=trace.layer_facts,
        tokens=trace.tokens,
        prompts=trace.prompts,
        checked=False,
    )
    mine, theirs = specialization(trace, n_permutations=100), specialization(other, n_permutations=100)
    for name in ("rate", "lift", "z", "p_value"):
        assert np.allclose(mine[name], theirs[name][:, :, relabel])


def test_task_types_may_be_tested_by_permuting_tasks():
    trace = planted_trace(seed=7, n_tasks=8, n_prompts_a_task=4)
    prompts, tasks = (specialization(trace, over="task_type", units=units) for units in ("prompt", "task"))
    assert prompts["rate"].equals(tasks["rate"])
    assert list(prompts["task_type"].values) == list(prompts["group"].values)
    # one task of a type owns the expert: its prompts stand out, but a type of two tasks does not
    assert prompts["significant"].sum() > tasks["significant"].sum()
    with pytest.raises(SelectionError, match="task_type"):
        specialization(trace, over="task", units="task")


def test_other_stacks_single_tasks_and_prompts():
    found = specialization(encoder_decoder_trace(), n_permutations=50)
    assert found["rate"].sel(layer="dec01", expert=slice(4, None)).isnull().all()
    assert found["p_value"].sel(layer="dec01", expert=slice(0, 3)).notnull().all()
    alone = specialization(trace_of([[0, 1], [1, 2]]), n_permutations=50)
    assert alone["p_value"].isnull().all()
    assert not alone["significant"].any()
    singles = specialization(random_trace(seed=8, n_prompts=3, n_tasks=3), n_permutations=200)
    assert float(singles["p_value"].min()) > 0.2  # three prompts can be labelled in 3 ways, tested from both sides


def test_counts_only_gives_lift_and_refuses_a_null():
    counts = np.array([[[2, 1, 1, 0]], [[1, 1, 0, 0]]])
    trace = trace_from_counts(counts, layer_facts=facts_of(1, n_experts=4, top_k=2), tasks=("a", "b"), n_tokens=3)
    found = specialization(trace, n_permutations=0)
    assert found.attrs["weighting"] == "tokens"
    # expert 0: load ½ of a and ½ of b, overall 3/6: no lift; expert 3 was never chosen: undefined
    assert found["lift"].sel(layer="L00", expert=0).values.tolist() == pytest.approx([0, 0])
    assert found["lift"].sel(expert=3).isnull().all()
    with pytest.raises(TraceError, match="level 'counts'"):
        specialization(trace)


def test_false_discovery_rate_by_hand():
    # sorted .01 .02 .04 .5 × 4/rank = .04 .04 .0533 .5; a missing test is none
    q = q_values(np.array([0.5, 0.01, np.nan, 0.04, 0.02]))
    assert q.tolist() == pytest.approx([0.5, 0.04, np.nan, 0.16 / 3, 0.04], nan_ok=True)


def test_information_by_hand():
    # two tasks of one prompt each, experts disjoint: the expert tells the task, I = ln 2; alike: I = 0
    apart = trace_of([[0], [1]], n_experts=2, prompts=[0, 1], tasks=("a", "b"))
    alike = trace_of([[0], [0]], n_experts=2, prompts=[0, 1], tasks=("a", "b"))
    assert task_information(apart, n_permutations=10).loc["L00", "information_nats"] == pytest.approx(np.log(2))
    assert task_information(alike, n_permutations=10).loc["L00", "information_nats"] == pytest.approx(0)


def test_information_finds_the_planted_layer_and_only_that():
    table = task_information(planted_trace(seed=9, n_tasks=4, with_logits=False))
    assert table["p_value"].idxmin() == "L03"
    assert table.loc["L03", "excess_nats"] > 5 * table.loc[["L00", "L01", "L02"], "excess_nats"].abs().max()
    assert 0 < table.loc["L03", "share"] < 1


def test_information_is_not_found_where_there_is_none():
    p = [
        task_information(null_trace(seed=seed, n_tasks=4, with_logits=False), n_permutations=99)["p_value"]
        for seed in range(20)
    ]
    assert (np.concatenate(p) <= 0.05).mean() <= 0.125  # 80 tests at 5 %: 10 or more in one of 100 such runs


def test_information_without_tokens_or_with_one_task():
    table = task_information(trace_of([[0, 1]]))
    assert table.loc["L00", "information_nats"] == pytest.approx(0)
    assert np.isnan(table.loc["L00", "p_value"])
