from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.reading import token_route
from app.prompts import choices_around, matching_prompts, outcome_of, prompt_lead
from app.views.tokens.search import asked_expert, found_prompts
from app.views.tokens.sentences import route_reading
from routing import RoutingTrace
from tests.adapter_traces import hyper_moe_trace
from tests.app.conftest import figure_of, text_of
from tests.counted import counted
from tests.traces import encoder_decoder_trace, planted_trace, random_trace, trace_of
from tests.with_prompts import with_prompts


def strip(page) -> dict:
    """What the page sends to the token strip."""
    sent = [each.proto for each in page.get("bidi_component")]
    (strip,) = (each for each in sent if each.component_name == "routescope.token_strip")
    return json.loads(strip.json)


def legend(sent: dict) -> dict:
    """The legend of the layer that is shown."""
    return sent["legends"][sent["layer"] if len(sent["legends"]) > 1 else 0]


def numbers(text: str, n_tokens: int) -> np.ndarray:
    """A table of the strip, layers × tokens."""
    return np.frombuffer(base64.b64decode(text), dtype="<u2").reshape(-1, n_tokens)


def test_the_first_prompt_is_read_where_none_is_asked_for(open_app):
    page = open_app("tokens", {"run": "even"})
    assert not page.exception
    sent = strip(page)
    assert sent["name"] == "Tokens of prompt spans-000"
    assert [section["label"] for section in sent["sections"]] == ["prompt", "generated"]
    assert sent["selected"] == -1
    assert not page.get("plotly_chart")
    assert "comes first for" in text_of(page)


def test_a_link_names_prompt_token_layer_and_shade(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002@4", "layer": "L02", "shade": "entropy"})
    sent = strip(page)
    assert (sent["name"], sent["selected"]) == ("Tokens of prompt facts-002", 4)
    assert sent["layers"][sent["layer"]] == "L02"
    assert legend(sent)["title"] == "Entropy in L02 (share of ln experts)"
    assert "Route of" in text_of(page)
    assert figure_of(page, "token_route")["data"][0]["y"] == ["L00", "L01", "L02"]


@pytest.mark.parametrize(
    "query",
    [
        {"focus": "facts-002@999"},
        {"layer": "L77"},
        {"shade": "<b>"},
        {"find": "no text is like this"},
        {"outcome": "?"},
    ],
)
def test_an_address_that_asks_for_too_much_is_no_error(open_app, query):
    page = open_app("tokens", {"run": "even"} | query)
    assert not page.exception
    assert not page.error


def test_a_search_without_a_hit_says_what_to_do(open_app):
    page = open_app("tokens", {"run": "even", "find": "no text is like this"})
    assert "No prompt is like that." in text_of(page)


def test_the_tasks_of_the_selection_narrow_the_list_but_not_the_focus(open_app):
    page = open_app("tokens", {"run": "even", "tasks": "facts", "focus": "spans-001"})
    assert strip(page)["name"] == "Tokens of prompt spans-001"
    assert page.selectbox(key="prompt").label == "Prompt · 6 of 36"


def test_stepping_keeps_the_layer_and_forgets_the_token(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002@4", "layer": "L01"})
    page.button(key="next").click().run()
    assert strip(page)["name"] == "Tokens of prompt facts-003"
    assert page.query_params["focus"] == "facts-003"
    assert page.query_params["layer"] == "L01"


def test_the_experts_of_a_token_become_the_selection(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002@4"})
    page.button(key="select_route").click().run()
    assert len(page.query_params["experts"].split(",")) == 3 * 2


def test_two_stacks_are_told_apart_where_their_positions_are_alike(app_on):
    trace = encoder_decoder_trace()
    page = app_on(trace, "tokens", {"focus": "p0@0", "stack": "decoder", "layer": "dec01"})
    assert not page.exception
    sent = strip(page)
    assert [section["label"] for section in sent["sections"]] == ["encoder · prompt", "decoder · generated"]
    assert sent["selected"] == sent["sections"][1]["start"]
    assert sent["absent"] == "not routed in this layer"
    assert numbers(sent["experts"], len(sent["texts"]))[sent["layer"], 0] == 65535
    layers = figure_of(page, "token_route")["data"][0]["y"]
    assert layers
    assert all(layer.startswith("dec") for layer in layers)


def test_without_runners_up_there_is_no_margin_to_color_by(app_on):
    page = app_on(trace_of([[0, 1], [1, 2]], n_experts=4, top_k=2), "tokens", {"focus": "p0@1", "shade": "margin"})
    assert not page.exception
    assert legend(strip(page))["kind"] == "hues"
    assert "how close the choices" in text_of(page)


def test_counts_alone_yield_a_sentence(app_on):
    page = app_on(counted(planted_trace(seed=0, n_prompts_a_task=2)), "tokens")
    assert not page.exception
    assert "counts per task only" in text_of(page)


def test_a_random_trace_is_read_whatever_it_lacks(app_on):
    assert not app_on(random_trace(seed=5), "tokens").exception


def test_a_click_costs_nothing_that_was_sent_before(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002"})
    before = strip(page)
    assert len(json.dumps(before)) < 20_000
    assert before["rev"] == 1
    page.run()
    assert strip(page) == before


def prompts_of(scores, texts) -> RoutingTrace:
    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2, n_layers=1)
    return with_prompts(trace, score=np.array(scores), text=texts)


def test_prompts_are_found_by_text_outcome_and_task():
    trace = prompts_of([1.0, 0.0, 0.4, np.nan], ["A [b] c", "d", "a(b", "e"])
    assert matching_prompts(trace) == (0, 1, 2, 3)
    assert matching_prompts(trace, text="[B]") == (0,)  # plain text, not a pattern
    assert matching_prompts(trace, text="a(") == (2,)
    assert matching_prompts(trace, outcome="partly") == (2,)
    assert matching_prompts(trace, tasks=("sentiment",), outcome="right") == ()
    assert [outcome_of(score) for score in (1.0, 0.0, 0.4, np.nan)] == ["right", "wrong", "partly", "unknown"]


def test_a_prompt_in_a_list_begins_after_its_instruction():
    assert prompt_lead("Name the city.\nWhere is it?\nanswer:", n_characters=40) == "Where is it? answer:"
    assert prompt_lead("One line", n_characters=40) == "One line"


@pytest.mark.parametrize("focus", [0, 3, 9, 10, 11, 49, 95, 99])
def test_a_long_list_shows_what_is_around_the_prompt_that_is_read(focus):
    rows = tuple(range(100))
    offered = choices_around(rows, focus=focus, most=20)
    assert len(offered) <= 20
    assert set(offered) >= {max(0, focus - 1), focus, min(99, focus + 1)}


def test_a_prompt_that_does_not_match_stays_on_offer():
    assert choices_around((1, 2, 3), focus=7, most=2) == (7, 1, 2)
    assert choices_around((1, 2, 3), focus=None, most=2) == (1, 2)
    assert choices_around((), focus=None, most=2) == ()


def test_all_layers_are_sent_so_that_going_through_them_asks_nothing(open_app):
    sent = strip(open_app("tokens", {"run": "even", "focus": "facts-002", "layer": "L01"}))
    n_tokens = len(sent["texts"])
    assert sent["layers"] == ["L00", "L01", "L02"]
    assert numbers(sent["experts"], n_tokens).shape == numbers(sent["levels"], n_tokens).shape == (3, n_tokens)
    assert {column["label"] for column in sent["columns"]} == {"weight", "margin", "entropy", "nll"}


def test_another_layer_of_the_selection_is_one_of_those_that_are_offered(open_app):
    sent = strip(open_app("tokens", {"run": "even", "focus": "facts-002", "layers": "L01,L02"}))
    assert sent["layers"] == ["L01", "L02"]


def test_tokens_are_colored_by_groups_of_experts(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002", "shade": "group", "layer": "L02"})
    assert not page.exception
    assert legend(strip(page))["title"] == "Cluster of first expert, L02"
    assert "belong to **cluster" in text_of(page)


def test_a_passage_is_compared_with_another_run(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002", "shade": "change"})
    assert "Choose the other run above" in text_of(page)
    page = open_app(
        "tokens", {"run": "even", "focus": "facts-002", "shade": "change", "base": "skewed", "layer": "L02"}
    )
    assert not page.exception
    assert legend(strip(page))["high"] == "1.0"
    assert "differ from those of skewed" in text_of(page) or "cannot be compared" in text_of(page)


@pytest.mark.parametrize(
    "query, marked",
    [
        ({"find": "a", "in": "text"}, True),
        ({"find": "the", "in": "token"}, True),
        ({"find": "L02·E1", "in": "expert"}, True),
        ({"find": "E1", "in": "expert", "layer": "L01"}, True),
        ({"find": "gibberish", "in": "expert"}, False),
    ],
)
def test_what_is_searched_is_marked_in_the_passage(open_app, query, marked):
    page = open_app("tokens", {"run": "even"} | query)
    assert not page.exception
    if page.get("bidi_component") and "No prompt is like that" not in text_of(page):
        assert (strip(page)["marks"] is not None) == marked


def test_an_expert_that_is_looked_for_brings_its_layer(open_app):
    asked = {"run": "even", "find": "L02·E1", "in": "expert"}
    assert strip(open_app("tokens", asked))["layer"] == 2
    assert strip(open_app("tokens", asked | {"layer": "L00"}))["layer"] == 0
    assert strip(open_app("tokens", {"run": "even", "find": "E1", "in": "expert"}))["layer"] == 1


def test_prompts_with_most_of_an_expert_come_first():
    trace = trace_of([[0, 1], [2, 3], [0, 1], [0, 2], [0, 3], [1, 2]], prompts=[0, 0, 1, 1, 2, 2], n_experts=4)
    assert asked_expert(trace, " L00·E0 ", layer="L00") == ("L00", 0)
    assert asked_expert(trace, "e3", layer="L00") == ("L00", 3)
    assert asked_expert(trace, "L00.E9", layer="L00") is None
    assert asked_expert(trace, "the", layer="L00") is None
    # expert 0 is chosen by 1 of 2, 2 of 2 and 1 of 2 tokens
    assert found_prompts(trace, kind="expert", text="E0", expert=("L00", 0)) == (1, 0, 2)
    assert found_prompts(trace, kind="expert", text="nothing", expert=None) == ()


def test_where_else_its_expert_fires_is_told_of_a_token(open_app):
    page = open_app("tokens", {"run": "even", "focus": "facts-002@4", "layer": "L02"})
    said = text_of(page)
    assert "fires like this" in said
    (contexts,) = (
        json.loads(each.proto.json)
        for each in page.get("bidi_component")
        if each.proto.component_name == "routescope.context_list"
    )
    assert contexts["rows"]
    assert all("facts-002" not in row["head"] for row in contexts["rows"])


def test_what_adapters_add_stands_beside_the_route(app_on):
    trace = hyper_moe_trace(seed=0, planted=True)
    page = app_on(trace, "tokens", {"focus": f"{trace.prompts['prompt'].iloc[0]}@1"})
    assert not page.exception
    assert "The adapters add" in text_of(page)
    assert "Adapter" in json.dumps(figure_of(page, "token_route")["layout"]["annotations"])


def test_the_one_expert_that_is_picked_elsewhere_is_found_in_the_text(open_app):
    marks = strip(open_app("tokens", {"run": "even", "focus": "facts-002", "experts": "L02.E2"}))["marks"]
    assert marks["what"] == "L02·E2 selected"
    assert marks["tokens"]
    assert strip(open_app("tokens", {"run": "even", "focus": "facts-002"}))["marks"] is None


@pytest.mark.parametrize(("scores", "little"), [((0.99, 0.006, 0.004), True), ((0.4, 0.31, 0.29), False)])
def test_a_close_call_tells_how_little_hangs_on_it(scores, little):
    trace = trace_of([[2, 0, 1]], n_experts=4, top_k=2, scores=[list(scores)])
    said = route_reading(token_route(trace, prompt=trace.prompts["prompt"][0], position=0), name="“a”")
    assert "E0 was selected before E1 by a margin of 0.0" in said
    assert ("Little hangs on it: E0 carries 0.60\u00a0% of the weight there." in said) == little


def test_the_only_layer_is_not_called_the_closest():
    trace = trace_of([[2, 0, 1]], n_experts=4, top_k=2, scores=[[0.5, 0.3, 0.2]])
    usual = pd.DataFrame({"low": [0.05], "high": [0.15]}, index=["L00"])
    said = route_reading(token_route(trace, prompt="p0", position=0), name="“a”", usual=usual)
    assert said == (
        "For “a” E0 was selected before E1 by a margin of 0.1001. "
        "The margin is in the middle half of those of all tokens."
    )


def test_of_a_stopped_run_the_prompts_that_were_read_come_first():
    trace = trace_of([[0], [1], [0]], prompts=[1, 1, 2], tasks=["a"] * 4)
    assert matching_prompts(trace) == (0, 1, 2, 3)
    stopped = RoutingTrace(replace(trace.storage, provenance=replace(trace.provenance, complete=False)))
    assert matching_prompts(stopped) == (1, 2, 0, 3)
    assert matching_prompts(stopped, prompts=("p0", "p2")) == (2, 0)
