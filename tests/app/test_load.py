from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.app.conftest import counted, text_of
from tests.traces import encoder_decoder_trace, planted_trace, trace_of


def spec(page, key: str) -> dict:
    chart = next(each for each in page.get("plotly_chart") if each.key == key)
    return json.loads(chart.proto.spec or chart.proto.figure.spec)


def test_the_overloaded_expert_is_named_and_its_drivers_are_shown(open_app):
    page = open_app("load", {"run": "skewed"})
    assert not page.exception
    said = text_of(page)
    assert "**L02·E3** is the busiest expert" in said
    assert "The busiest expert, L02·E3" in said


def test_a_deep_link_looks_at_the_linked_expert(open_app):
    page = open_app("load", {"run": "skewed", "experts": "L00.E5"})
    assert "The picked expert, L00·E5" in text_of(page)
    (frame,) = (shape for shape in spec(page, "load_heatmap")["layout"]["shapes"])
    assert (frame["x0"], frame["y0"]) == (4.5, -0.5)


def test_the_threshold_of_the_address_decides_what_is_uneven(open_app):
    strict, lax = (open_app("load", {"run": "even", "uneven": value}) for value in ("1.25", "3"))
    assert "below the threshold of 3" in text_of(lax)
    assert text_of(strict) != text_of(lax)
    nonsense = open_app("load", {"run": "even", "uneven": "<script>"})
    assert not nonsense.exception


def test_another_run_is_compared_layer_by_layer(open_app):
    page = open_app("load", {"run": "even", "base": "skewed"})
    assert "**skewed** is clearly less even in 1" in text_of(page)
    assert {trace.get("name") for trace in spec(page, "load_tracks")["data"]} == {"this run", "skewed"}
    mine, theirs = (spec(page, key)["layout"]["coloraxis"] for key in ("load_heatmap", "load_heatmap_base"))
    assert mine["cmax"] == theirs["cmax"]


def test_filters_narrow_rows(open_app):
    page = open_app("load", {"run": "skewed", "layers": "L00,L02", "tasks": "facts"})
    assert spec(page, "load_heatmap")["layout"]["yaxis"]["ticktext"] == ["L00", "L02"]


def test_two_stacks_hatch_what_a_layer_does_not_have(app_on):
    page = app_on(encoder_decoder_trace(), "load")
    assert not page.exception
    assert "not in this layer" in {trace.get("name") for trace in spec(page, "load_heatmap")["data"]}


def test_one_token_and_counts_alone_are_enough(app_on):
    page = app_on(trace_of([[0, 1]], n_experts=4), "load")
    assert not page.exception
    assert "2 experts of 4 were never chosen" in text_of(page)


def test_counts_have_no_intervals_but_a_view(app_on):
    page = app_on(counted(planted_trace(seed=0)), "load")
    assert not page.exception
    assert "busiest expert" in text_of(page)


def test_a_run_without_tokens_is_an_empty_state(app_on):
    page = app_on(trace_of(np.zeros((0, 1, 2), dtype=int)), "load")
    assert not page.exception
    assert "no tokens yet" in page.info[0].value


@pytest.mark.parametrize("view", ["load", "tasks", "overview"])
def test_hostile_names_are_shown_not_obeyed(app_on, view):
    names = ["<script>alert(1)</script>", "**bold** $x$ [a](javascript:1)"]
    trace = trace_of(
        [[0, 1]] * 8,
        prompts=[0, 0, 1, 1, 2, 2, 3, 3],
        tasks=[names[0], names[1]] * 2,
        task_types={names[0]: "<img src=x>", names[1]: ":red[type]"},
    )
    page = app_on(trace, view, {"experts": "L00.E0"})
    assert not page.exception
    for each in page.get("plotly_chart"):
        assert "<script>" not in (each.proto.spec or each.proto.figure.spec)
    said = text_of(page)
    # In Markdown a bracket with a backslash is a bracket, not the beginning of an element.
    assert not re.search(r"(?<!\\)<(script|img)", said)
