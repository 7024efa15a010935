from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.correlation import feature_correlation
from analysis.experts import expert_profile
from analysis.health import load_health
from analysis.load import idle_experts, load_balance
from analysis.scores import task_scores
from analysis.specialization import specialization
from app import sentences
from app.questions import expert_order, task_order
from app.views.tasks import sentences as task_sentences
from tests.traces import null_trace, planted_trace, trace_of

NB = "\N{NO-BREAK SPACE}"


def test_numbers_are_written_with_the_digits_that_matter():
    assert [sentences.percent(share) for share in (0.5, 0.0512, 0.00123, 0.0)] == [
        f"50{NB}%",
        f"5.1{NB}%",
        f"0.12{NB}%",
        f"0{NB}%",
    ]
    assert sentences.percent(float("nan")) == "unknown"
    assert sentences.times(7.46) == f"7.5{NB}×"
    assert sentences.times(0.333) == f"0.33{NB}×"
    assert sentences.count(1, "layer") == "1 layer"
    assert sentences.count(1200, "layer") == "1,200 layers"
    assert sentences.and_list(["a"]) == "a"
    assert sentences.and_list(["a", "b", "c"]) == "a, b and c"
    assert sentences.and_list(list("abcdef"), most=2) == "a, b and 4 more"


def test_markdown_is_escaped():
    assert sentences.escaped("a*b <i> $x$") == r"a\*b \<i\> \$x\$"


def test_the_uneven_layer_is_named_with_its_factor():
    # 8 assignments to 4 experts; expert 0 takes 4 of them: 2 × the mean.
    trace = trace_of([[0, 1], [0, 2], [0, 3], [0, 1]], n_experts=4, prompts=[0, 1, 2, 3])
    said = sentences.of_balance(load_balance(trace), threshold=1.5)
    assert said.startswith(f"**L00·E0** is the busiest expert: 2.0{NB}× the mean load of its layer")
    assert f"1 layer of 1 is above 1.5{NB}×: L00." in said
    assert "below the threshold of 3" in sentences.of_balance(load_balance(trace), threshold=3)


def test_idle_experts_are_weighed_against_chance():
    few = trace_of([[0, 1]], n_experts=4)
    assert "2 experts of 4 were never chosen; but with so few prompts chance" in sentences.of_idle(
        idle_experts(few), n_experts=4
    )
    many = trace_of([[0, 1]] * 40, n_experts=4, prompts=range(40))
    assert "too many prompts passed for that to be chance" in sentences.of_idle(idle_experts(many), n_experts=4)
    # Of one expert 0.004 would do; of four, as the check of the load asks, it does not.
    some = trace_of([[0, 1]] * 8, n_experts=4, prompts=range(8))
    assert "with so few prompts chance" in sentences.of_idle(idle_experts(some), n_experts=4)
    assert "so few prompts" in next(each.sentence for each in load_health(some) if each.check == "idle")
    assert "Every one of the 2 experts" in sentences.of_idle(idle_experts(trace_of([[0, 1]], n_experts=2)), n_experts=2)


def test_the_task_that_brings_most_drives_an_expert_not_a_small_one_of_a_higher_ratio():
    # Of 11 assignments of expert 0, a brings 9 with 12 of 24 tokens (1.6 times), b 2 with 2 (2.2 times), c none.
    chosen, prompts = [0] * 9 + [1] * 3 + [0] * 2 + [1] * 10, [0] * 12 + [1] * 2 + [2] * 10
    trace = trace_of([[each] for each in chosen], n_experts=2, prompts=prompts, tasks=["a", "b", "c"])
    said = sentences.of_drivers(expert_profile(trace, layer="L00", expert=0), layer="L00", expert=0)
    assert said.startswith(f"a drives **L00·E0** most: 82{NB}% of its assignments come from 50{NB}% of the tokens")


def test_who_drives_an_expert():
    # Task a has one token of four and brings expert 0 one of its two assignments: twice its share.
    trace = trace_of(
        [[0], [1], [0], [1]], n_experts=2, prompts=[0, 1, 1, 1], tasks=["a", "b"], task_types={"a": "code", "b": "code"}
    )
    said = sentences.of_drivers(expert_profile(trace, layer="L00", expert=0), layer="L00", expert=0)
    assert said == (
        f"a drives **L00·E0** most: 50{NB}% of its assignments come from 25{NB}% of the tokens, 2.0{NB}× its share."
    )
    whole = sentences.of_drivers(expert_profile(trace, layer="L00", expert=0), layer="L00", expert=0, unit="prompt")
    assert f"come from 25{NB}% of the prompts" in whole
    even = trace_of([[0], [0]], n_experts=2, prompts=[0, 1], tasks=["a", "b"])
    assert "No task drives" in sentences.of_drivers(expert_profile(even, layer="L00", expert=0), layer="L00", expert=0)
    assert "not chosen by any token" in sentences.of_drivers(
        expert_profile(even, layer="L00", expert=1), layer="L00", expert=1
    )


def test_a_preference_within_its_interval_is_called_chance():
    clear = planted_trace(seed=1, n_prompts_a_task=12)
    said = sentences.of_profile(expert_profile(clear, layer="L03", expert=2), layer="L03", expert=2)
    assert said.startswith("**L03·E2** serves facts most")
    assert "chance" not in said
    single = trace_of([[0], [1]], n_experts=2, prompts=[0, 1], tasks=["a", "b"])
    said = sentences.of_profile(expert_profile(single, layer="L00", expert=0), layer="L00", expert=0)
    assert "may be chance" in said


def test_scores_are_judged_against_a_constant_answer():
    trace = planted_trace(seed=1)
    assert sentences.of_scores(task_scores(trace)).startswith("Best at ")
    table = pd.DataFrame({"score": [0.9, 0.5], "score_low": [0.8, 0.4], "baseline": [0.5, 0.5]}, index=["a", "b"])
    assert sentences.of_scores(table).startswith("On 1 of 2 tasks with a constant answer to beat")
    assert "holds no scores" in sentences.of_scores(table.assign(score=np.nan))


def test_runs_are_compared_where_they_share_layers():
    here = pd.DataFrame({"max_over_mean": [1.2, 1.5]}, index=["L0", "L1"])
    there = pd.DataFrame({"max_over_mean": [3.0, 1.4]}, index=["L0", "L1"])
    for table in (here, there):
        table["max_over_mean_low"], table["max_over_mean_high"] = (
            table["max_over_mean"] - 0.2,
            table["max_over_mean"] + 0.2,
        )
    said = sentences.of_comparison(here, there, name="twin")
    assert said.startswith("Of 2 layers, **twin** is clearly less even in 1 and clearly more even in 0")
    assert f"3.0{NB}× the mean load (L0), this run's 1.5{NB}× (L1)" in said
    assert "no layer in common" in sentences.of_comparison(
        here, there.rename(index={"L0": "x", "L1": "y"}), name="twin"
    )


def test_planted_specialists_are_said_and_a_null_is_not():
    planted = specialization(planted_trace(seed=1), n_permutations=200)
    said = task_sentences.of_lift(planted)
    assert "beyond chance (q ≤ 0.05" in said
    assert "**L03·E" in said
    null = specialization(null_trace(seed=5), n_permutations=200)
    assert task_sentences.of_lift(null).startswith("None of")
    unjudged = specialization(planted_trace(seed=1), n_permutations=0)
    assert "chance cannot be judged" in task_sentences.of_lift(unjudged)


def test_types_with_an_expert_of_their_own_are_told_from_those_without():
    # All extractive tasks prefer one expert; the knowledge tasks share none.
    owners = {"spans": (3, 1), "names": (3, 1), "facts": (3, 5), "capitals": (2, 6)}
    trace = planted_trace(seed=1, n_tasks=8, specialists=owners, n_prompts_a_task=12)
    said = task_sentences.of_features(feature_correlation(trace, n_permutations=500))
    assert "extractive has **L03·E1** (r = +" in said
    assert "For" in said.split("extractive has")[1]
    lone = trace_of([[0], [1]], n_experts=2, prompts=[0, 1], tasks=["a", "b"], task_types={"a": "x", "b": "y"})
    assert "No type is shared" in task_sentences.of_features(feature_correlation(lone))


def test_orders_hold_every_task_and_expert_once():
    trace = planted_trace(seed=1)
    assert sorted(task_order(trace, values="lift").names) == sorted(trace.tasks)
    assert len(set(expert_order(trace, values="rate").experts)) == int(trace.expert_exists.sum())
    one = expert_order(trace, values="lift", layers=("L02",))
    assert {layer for layer, _ in one.experts} == {"L02"}


@pytest.mark.parametrize("table", [pd.DataFrame({"max_over_mean": [np.nan]}, index=["L0"])])
def test_nothing_routed_is_said(table):
    assert "No layer routed" in sentences.of_balance(table, threshold=1.5)


def test_a_ratio_of_sizes_is_a_percentage_until_it_is_many_times():
    assert sentences.part_of(0.12) == "12\N{NO-BREAK SPACE}% of"
    assert sentences.part_of(22.52) == "22.5\N{NO-BREAK SPACE}×"
    assert sentences.size(1.5) == "150\N{NO-BREAK SPACE}%"
    assert sentences.part_of(float("nan")) == "unknown of"
