from __future__ import annotations

import json
import re

import numpy as np
import pytest

from app.questions import layer_order
from routing import save_trace
from tests.adapter_traces import task_moe_trace
from tests.app.conftest import charts_of, figure_of, text_of
from tests.counted import counted
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, trace_of
from tests.with_prompts import with_prompts


def test_the_overloaded_expert_is_named_and_its_drivers_are_shown(open_app):
    page = open_app("load", {"run": "skewed"})
    assert not page.exception
    said = text_of(page)
    assert "**L02·E3** is the busiest expert" in said
    assert "The busiest expert, L02·E3" in said


def test_a_deep_link_looks_at_the_linked_expert(open_app):
    page = open_app("load", {"run": "skewed", "experts": "L00.E5"})
    assert "The picked expert, L00·E5" in text_of(page)
    (frame,) = (shape for shape in figure_of(page, "load_heatmap")["layout"]["shapes"])
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
    assert {trace.get("name") for trace in figure_of(page, "load_tracks")["data"]} == {"this run", "skewed"}
    mine, theirs = (figure_of(page, key)["layout"]["coloraxis"] for key in ("load_heatmap", "load_heatmap_base"))
    assert mine["cmax"] == theirs["cmax"]


def test_filters_narrow_rows(open_app):
    page = open_app("load", {"run": "skewed", "layers": "L00,L02", "tasks": "facts"})
    assert figure_of(page, "load_heatmap")["layout"]["yaxis"]["ticktext"] == ["L00", "L02"]


def test_two_stacks_hatch_what_a_layer_does_not_have(app_on):
    page = app_on(encoder_decoder_trace(), "load")
    assert not page.exception
    assert "not in this layer" in {trace.get("name") for trace in figure_of(page, "load_heatmap")["data"]}


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
    plain = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=6, n_layers=2)
    names = dict(zip(plain.tasks, ["<script>alert(1)</script>", "**bold** $x$ [a](javascript:1)"], strict=True))
    types = ["<img src=x>" if task == plain.tasks[0] else ":red[type]" for task in plain.prompts["task"]]
    trace = with_prompts(plain, task=plain.prompts["task"].map(names), task_type=types)
    page = app_on(trace, view, {"experts": "L00.E0"})
    assert not page.exception
    # As the browser reads them: on the way there no text has such brackets.
    drawn = json.dumps([figure_of(page, key) for key in charts_of(page)])
    assert "&lt;script&gt;alert" in drawn
    assert not re.search(r"<(script|img)", drawn)
    said = text_of(page)
    # In Markdown a bracket with a backslash is a bracket, not the beginning of an element.
    assert not re.search(r"(?<!\\)<(script|img)", said)


@pytest.fixture(scope="module")
def causes(tmp_path_factory):
    """Task "facts" alone overloads expert 1 of L01; a null run; and one that was recorded task by task."""
    folder = tmp_path_factory.mktemp("caused")
    shape = {"n_tasks": 3, "n_prompts_a_task": 24, "n_tokens_a_prompt": 8, "n_layers": 2}
    save_trace(planted_trace(seed=3, specialists={"facts": (1, 1)}, strength=6.0, **shape), folder / "caused")
    save_trace(null_trace(seed=3, prompt_effect=0.0, **shape), folder / "null")
    return folder


def test_the_checks_come_first_with_thresholds_and_their_way(open_app, causes):
    page = open_app("load", {"run": "caused", "tasks": "facts"}, runs=causes)
    assert not page.exception
    said = text_of(page)
    assert re.search(r"Of \d checks, \*\*\d\*\* ask", said)
    assert "L01·E1 does" in said.replace("\\", "")
    assert "act above 2" in said
    page.button(key="verdict_busiest").click().run()
    assert not page.exception
    assert page.query_params["part"] in ("causes", ["causes"])
    assert "Who overloads L01·E1, by task" in text_of(page)


def test_causes_name_the_task_and_a_click_less_run_says_there_is_little(open_app, causes):
    page = open_app("load", {"run": "caused", "part": "causes", "uneven": "1.25"}, runs=causes)
    assert not page.exception
    assert "**facts** brings" in text_of(page)
    assert {"load_cause_tasks", "load_cause_tokens"} <= set(charts_of(page))
    null = open_app("load", {"run": "null", "part": "causes", "uneven": "2"}, runs=causes)
    assert "there is little to explain" in text_of(null)


def test_passes_are_judged_against_random_prompts(open_app, causes):
    page = open_app("load", {"run": "caused", "part": "passes", "batch": "4", "layer": "L01"}, runs=causes)
    assert not page.exception
    said = text_of(page)
    assert "In **L01** the busiest expert of a pass does" in said
    assert "mixing prompts would help" in said
    assert "Every pass of L01" in said
    null = open_app("load", {"run": "null", "part": "passes", "batch": "4"}, runs=causes)
    assert "no layer's batches are worse than chance" in text_of(null)
    mixed = open_app("load", {"run": "caused", "part": "passes", "batch": "4", "order": "shuffled"}, runs=causes)
    assert "Prompts are mixed already" in text_of(mixed)


def test_places_and_scales_and_the_course_of_the_run(open_app, causes):
    page = open_app("load", {"run": "caused", "part": "places", "batch": "4"}, runs=causes)
    assert not page.exception
    assert {"load_positions", "load_scales"} == set(charts_of(page))
    assert "which a larger batch evens out" in text_of(page)
    drifted = open_app("load", {"run": "caused", "part": "run", "layer": "L01"}, runs=causes)
    assert "The load drifted" in text_of(drifted)
    steady = open_app("load", {"run": "null", "part": "run"}, runs=causes)
    assert "No drift beyond chance" in text_of(steady)


@pytest.mark.parametrize("part", ["passes", "places", "causes", "run"])
def test_parts_say_calmly_what_a_run_does_not_tell(app_on, tmp_path, part):
    traces = {
        "counts": counted(planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2, n_layers=1)),
        "prompts": task_moe_trace(seed=0),
        "stacks": encoder_decoder_trace(),
        "one": trace_of([[0, 1]], n_experts=4),
    }
    for name, trace in traces.items():
        save_trace(trace, tmp_path / "runs" / name)
    for name, trace in traces.items():
        page = app_on(trace, "load", {"run": name, "part": part})
        assert not page.exception, (name, page.exception)
        assert not page.error, (name, [each.value for each in page.error])
    narrowed = app_on(traces["stacks"], "load", {"run": "counts", "part": part, "tasks": "spans"})
    assert not narrowed.exception


def test_a_slow_answer_leaves_the_page_usable(open_app, causes, monkeypatch):
    monkeypatch.setattr("app.views.load.verdicts._MOST_AT_ONCE", 0)
    page = open_app("load", {"run": "caused"}, runs=causes)
    assert not page.exception
    assert "The load is being checked" in text_of(page)
    assert "load_heatmap" in charts_of(page)


def test_each_layer_has_its_own_order_and_a_click_finds_who_stands_there(open_app):
    page = open_app("load", {"run": "skewed", "expert_order": "load", "layer_order": "uneven"})
    assert not page.exception
    layout = figure_of(page, "load_heatmap")["layout"]
    # Expert 3 of L02 is the planted one: the least even layer comes first, and its busiest expert.
    assert layout["yaxis"]["ticktext"][0] == "L02"
    assert layout["xaxis"]["title"]["text"] == "place in the order of the layer"
    names = figure_of(page, "load_heatmap")["data"][0]["text"]
    assert names[0][0] == "L02·E3"
    assert all(sorted(row) == [f"{row[0][:3]}·E{expert}" for expert in range(8)] for row in names)
    page.session_state["load_heatmap_bridge"] = {"click": {"x": 0, "y": 0}}
    assert "Each layer has its own order of experts, the busiest first" in text_of(page)


@pytest.mark.parametrize("columns", ["clustered", "type", "strength", "even"])
def test_every_order_of_experts_draws_each_once(open_app, columns):
    page = open_app("load", {"run": "even", "expert_order": columns, "layer_order": "clustered", "experts": "L01.E6"})
    assert not page.exception
    names = figure_of(page, "load_heatmap")["data"][0]["text"]
    assert sorted(name for row in names for name in row) == [f"L0{n}·E{e}" for n in range(3) for e in range(8)]
    (frame,) = (shape for shape in figure_of(page, "load_heatmap")["layout"]["shapes"])
    assert names[int(frame["y0"] + 0.5)][int(frame["x0"] + 0.5)] == "L01·E6"
    assert "loads fall off alike" in text_of(page)


def test_layers_are_clustered_by_their_sorted_loads():
    # The first and the last layer have one busy expert, whichever it is; that of the middle is even.
    trace = trace_of([[[0], [0], [3]], [[0], [1], [3]], [[0], [2], [3]], [[1], [3], [0]]], n_experts=4)
    order = layer_order(trace)
    assert sorted(order.order[:2].tolist()) == [0, 2] or sorted(order.order[1:].tolist()) == [0, 2]


def test_orders_of_a_run_of_counts_draw(app_on):
    page = app_on(
        counted(planted_trace(seed=0)), "load", {"expert_order": "type", "layer_order": "clustered", "tasks": "facts"}
    )
    assert not page.exception
