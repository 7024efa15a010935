from __future__ import annotations

import json

import pytest

from tests.app.conftest import counted, text_of
from tests.traces import encoder_decoder_trace, null_trace, planted_trace, trace_of

SHAPE = {"n_tasks": 6, "n_prompts_a_task": 6, "n_tokens_a_prompt": 10, "n_layers": 3}


def spec(page, key: str) -> dict:
    chart = next(each for each in page.get("plotly_chart") if each.key == key)
    return json.loads(chart.proto.spec or chart.proto.figure.spec)


def test_planted_specialists_are_found_and_named(open_app):
    page = open_app("tasks", {"run": "even"})
    assert not page.exception
    said = text_of(page)
    assert "cells differ from the average beyond chance" in said
    assert "The clearest preference" in said
    assert "**L02·E" in said


def test_without_an_effect_nothing_is_claimed(app_on):
    page = app_on(null_trace(seed=3, **SHAPE), "tasks")
    assert not page.exception
    assert "None of" in text_of(page)
    assert "so there are experts for types of task here" not in text_of(page)


@pytest.mark.parametrize("values", ["lift", "rate", "load"])
@pytest.mark.parametrize("over", ["task", "task_type"])
def test_every_switch_draws(open_app, values, over):
    page = open_app("tasks", {"run": "even", "values": values, "over": over, "rows": "type", "columns": "clustered"})
    assert not page.exception
    rows = spec(page, "tasks_heatmap")["layout"]["yaxis"]["ticktext"]
    assert len(rows) == (6 if over == "task" else 3)


def test_rows_by_type_stand_together(open_app):
    page = open_app("tasks", {"run": "even", "rows": "type"})
    rows = spec(page, "tasks_heatmap")["layout"]["yaxis"]["ticktext"]
    types = [{"spans": "e", "names": "e", "sentiment": "c", "topics": "c"}.get(row, "k") for row in rows]
    assert types == sorted(types, key=types.index)


def test_the_detail_of_an_expert_shows_tokens_and_prompts(open_app):
    page = open_app("tasks", {"run": "even", "experts": "L02.E1"})
    assert not page.exception
    assert "**L02·E1** serves sentiment most" in text_of(page)
    assert list(page.dataframe[0].value.columns) == ["token", "share", "seen"]
    assert len(page.get("page_link")) > 5


def test_the_layer_picker_is_the_layer_filter(open_app):
    page = open_app("tasks", {"run": "even"})
    page.selectbox(key="one_layer").select("L01").run()
    assert page.query_params["layers"] == "L01"
    assert spec(page, "tasks_heatmap")["layout"]["xaxis"]["title"]["text"] == "expert of layer L01"
    page.selectbox(key="one_layer").select("all layers").run()
    assert "layers" not in page.query_params


def test_a_task_filter_keeps_rows_not_meaning(open_app):
    page = open_app("tasks", {"run": "even", "tasks": "facts,spans"})
    assert set(spec(page, "tasks_heatmap")["layout"]["yaxis"]["ticktext"]) == {"facts", "spans"}


@pytest.mark.parametrize(
    "trace",
    [
        trace_of([[0, 1]], n_experts=4),
        encoder_decoder_trace(),
        counted(planted_trace(seed=0, **SHAPE)),
        trace_of([[0], [0]], n_experts=1),
    ],
    ids=["one token", "encoder–decoder", "counts", "one expert"],
)
def test_small_and_odd_runs_draw(app_on, trace):
    page = app_on(trace, "tasks", {"experts": f"{trace.layers[0]}.E0"})
    assert not page.exception
