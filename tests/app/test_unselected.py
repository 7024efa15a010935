from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from app.views.unselected.sentences import of_margins, of_near_ties
from routing import RoutingTrace
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.app.conftest import charts_of, figure_of, text_of
from tests.traces import planted_trace, trace_of


def test_every_moe_run_has_margins_ties_and_runners_up(open_app):
    page = open_app("unselected", {"run": "skewed"})
    assert not page.exception
    assert {"unselected_margins", "unselected_entropy", "unselected_ties", "unselected_second"} <= set(charts_of(page))
    said = text_of(page)
    assert "half have a margin under" in said
    assert "Most ties (margin at most 0.01) are in" in said
    assert "independence" in said
    assert "HyperMoE does: choose a run of one" in said


def test_a_margin_between_scores_that_are_both_next_to_nothing_is_not_called_doubt():
    spread = pd.DataFrame({"n_tokens": [9, 9], "q50": [0.0004, 0.05]}, index=["L00", "L01"])
    decided = pd.DataFrame({"q50": [0.003, 0.4]}, index=["L00", "L01"])
    said = of_margins(spread, unit="token", undecided=decided)
    assert "in L00, where choices are closest" in said
    assert "no doubt of the router: in L00 one expert has nearly all of the score (median entropy 0.00)" in said
    for undecided in (None, decided[::-1].set_axis(["L00", "L01"]), decided.iloc[:0]):
        assert "no doubt" not in of_margins(spread, unit="token", undecided=undecided)


def test_ties_and_layer_are_part_of_the_address(open_app):
    page = open_app("unselected", {"run": "even", "tie": "0.05", "layer": "L02", "second": "share", "tasks": "facts"})
    assert not page.exception
    assert "margin at most 0.05" in text_of(page)
    assert "Who comes second in L02" in text_of(page)
    assert "facts" in figure_of(page, "unselected_ties")["layout"]["yaxis"]["ticktext"]
    assert figure_of(page, "unselected_second")["layout"]["coloraxis"]["colorbar"]["title"]["text"] == "share of tokens"


@pytest.mark.parametrize("query", [{"tie": "<b>"}, {"layer": "L99"}, {"second": "?"}, {"site": "x"}, {"vector": "y"}])
def test_an_address_that_makes_no_sense_falls_back(open_app, query):
    page = open_app("unselected", {"run": "even"} | query)
    assert not page.exception
    assert not page.error


@pytest.mark.parametrize("hue", ["expert", "task", "site"])
def test_hypermoe_adds_its_adapters_their_likeness_and_what_they_add(app_on, hue):
    trace = hyper_moe_trace(seed=0, n_experts=6)
    page = app_on(trace, "unselected", {"layout": "pca", "hue": hue, "vector": "selection_embedding"})
    assert not page.exception
    assert {
        "unselected_map",
        "unselected_alike_embedding",
        "unselected_alike_adapter",
        "unselected_layers",
        "unselected_ratio",
    } <= set(charts_of(page))
    said = text_of(page)
    assert "selection embeddings on a map" in said
    assert "Trustworthiness **" in said
    assert "embeddings and adapters agree at ρ = **" in said
    assert "Adapters add most for L02·E0" in said  # planted: four times as much
    assert "**one for each" not in said


def test_adapters_of_all_layers_stand_in_blocks_layer_by_layer(app_on):
    page = app_on(hyper_moe_trace(seed=0), "unselected", {"layout": "pca"})
    assert not page.exception
    figure = figure_of(page, "unselected_layers")
    assert list(figure["layout"]["yaxis"]["ticktext"]) == ["L01", "L02"]
    assert "Two adapters of one layer have a cosine of **" in text_of(page)


def test_with_one_selected_expert_the_map_warns_that_it_says_little(app_on):
    page = app_on(hyper_moe_trace(seed=0, top_k=1), "unselected", {"layout": "pca"})
    assert not page.exception
    assert "**one for each expert of each layer by construction**" in text_of(page)


def test_one_layer_of_the_map_shows_that_layer_alone(app_on):
    trace = hyper_moe_trace(seed=0)
    whole = app_on(trace, "unselected", {"layout": "pca"})
    part = app_on(trace, "unselected", {"layout": "pca", "site": "L01"})
    assert not part.exception

    def n_points(page) -> int:
        return sum(
            len(each["text"]) for each in figure_of(page, "unselected_map")["data"] if each["type"] == "scattergl"
        )

    assert 0 < n_points(part) < n_points(whole)


@pytest.mark.parametrize("trace", [pha_trace(seed=0), task_moe_trace(seed=0), task_moe_trace(seed=0, soft=True)])
def test_runs_that_decide_once_a_prompt_have_the_view_too(app_on, trace):
    page = app_on(trace, "unselected")
    assert not page.exception
    said = text_of(page)
    assert ("none comes second" in said) == trace.dense_routing
    assert ("of its prompts" in said or "Of " in said) != trace.dense_routing


def test_without_runners_up_the_view_says_how_to_get_them(app_on):
    page = app_on(trace_of([[0, 1], [1, 2]], n_experts=4, top_k=2), "unselected")
    assert not page.exception
    assert "--runners-up 1" in text_of(page)


def test_without_logits_there_are_margins_but_no_entropy(app_on):
    full = planted_trace(seed=0, n_prompts_a_task=2, n_layers=2)
    without = RoutingTrace.from_arrays(
        full.experts.values,
        scores=full.scores.values,
        weights=full.weights.values,
        layer_facts=full.layer_facts,
        tokens=full.tokens,
        prompts=full.prompts,
    )
    page = app_on(without, "unselected")
    assert not page.exception
    assert "unselected_margins" in charts_of(page)
    assert "An entropy needs logits" in text_of(page)


def test_tasks_without_a_tie_are_counted_and_not_called_fewest():
    shares = pd.DataFrame({"n_tokens": 50, "share": [0.2, 0.0, 0.0], "share_low": [0.1, np.nan, np.nan]})
    shares["share_high"] = [0.3, np.nan, np.nan]
    tasks = shares.set_index(pd.MultiIndex.from_product([["a", "b", "c"], ["L00"]], names=["task", "layer"]))
    layers = shares.iloc[:1].set_index(pd.Index(["L00"], name="layer"))
    said = of_near_ties(layers, tasks, within=0.01, unit="token")
    assert "a has most there (20\N{NO-BREAK SPACE}%; 95\N{NO-BREAK SPACE}%: 10\N{NO-BREAK SPACE}% to" in said
    assert "2 of 3 tasks have none." in said
    assert "None of 50 tokens is tied" in of_near_ties(layers.assign(share=0.0), tasks, within=0.01, unit="token")


def test_one_token_is_too_few_for_a_test(app_on):
    page = app_on(trace_of([[0, 1, 2]], n_experts=4, top_k=1, scores=np.array([[0.5, 0.3, 0.1]])), "unselected")
    assert not page.exception
    assert "too few to say whether the runner-up depends" in text_of(page)
