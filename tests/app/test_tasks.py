from __future__ import annotations

import base64

import numpy as np
import pytest
import xarray as xr

from app.components.plot_bridge import Range
from app.views.tasks.table import Asked, Window
from figures.cells import cells_of
from tests.app.conftest import figure_of, text_of
from tests.odd_runs import ODD
from tests.traces import null_trace

SHAPE = {"n_tasks": 6, "n_prompts_a_task": 6, "n_tokens_a_prompt": 10, "n_layers": 3}


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
    rows = figure_of(page, "tasks_heatmap")["layout"]["yaxis"]["ticktext"]
    assert len(rows) == (6 if over == "task" else 3)


def test_rows_by_type_stand_together(open_app):
    page = open_app("tasks", {"run": "even", "rows": "type"})
    rows = figure_of(page, "tasks_heatmap")["layout"]["yaxis"]["ticktext"]
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
    assert figure_of(page, "tasks_heatmap")["layout"]["xaxis"]["title"]["text"] == "expert of layer L01"
    page.selectbox(key="one_layer").select("all layers").run()
    assert "layers" not in page.query_params


def test_a_task_filter_keeps_rows_not_meaning(open_app):
    page = open_app("tasks", {"run": "even", "tasks": "facts,spans"})
    assert set(figure_of(page, "tasks_heatmap")["layout"]["yaxis"]["ticktext"]) == {"facts", "spans"}


@pytest.mark.parametrize("odd", ["one token", "encoder–decoder", "counts", "one expert"])
def test_small_and_odd_runs_draw(app_on, odd):
    trace = ODD[odd]()
    page = app_on(trace, "tasks", {"experts": f"{trace.layers[0]}.E0"})
    assert not page.exception


@pytest.mark.parametrize(
    "rows, columns", [("clustered", "layer"), ("type", "type"), ("strength", "strength"), ("score", "clustered")]
)
def test_every_order_shows_every_task_and_expert_once(open_app, rows, columns):
    page = open_app("tasks", {"run": "even", "rows": rows, "columns": columns})
    assert not page.exception
    layout = figure_of(page, "tasks_heatmap")["layout"]
    assert sorted(layout["yaxis"]["ticktext"]) == sorted(["spans", "names", "sentiment", "topics", "facts", "capitals"])
    assert layout["xaxis"]["range"] == [-0.5, 23.5]


def test_the_specialists_come_first_where_experts_are_ordered_by_preference(open_app):
    page = open_app("tasks", {"run": "even", "columns": "strength"})
    cells = figure_of(page, "tasks_heatmap")["data"][0]["text"]
    assert all("L02·E" in each.partition(" · ")[2] for each in cells[0][:6])


ASKED = Asked(values="lift", over="task", rows="type", columns="layer")


def test_a_link_shows_the_part_that_was_zoomed_into(open_app):
    window = Window(rows=(1, 3), columns=(8, 16)).to_text(ASKED, shape=(6, 24))
    page = open_app("tasks", {"run": "even", "rows": "type", "zoom": window})
    layout = figure_of(page, "tasks_heatmap")["layout"]
    assert len(layout["yaxis"]["ticktext"]) == 2
    assert layout["xaxis"]["title"]["text"] == "expert of layer L01"
    assert "rows 2 to 3 of 6, experts 9 to 16 of 24" in text_of(page)
    page.button(key="whole_table").click().run()
    assert "zoom" not in page.query_params
    assert len(figure_of(page, "tasks_heatmap")["layout"]["yaxis"]["ticktext"]) == 6


@pytest.mark.parametrize(
    "zoom", ["nonsense", "5-2.0-1", "0-9999.0-2.task.type.layer.lift.6x24", "0-2.0-2.task.clustered.layer.lift.6x24"]
)
def test_a_part_of_another_order_is_the_whole(open_app, zoom):
    page = open_app("tasks", {"run": "even", "rows": "type", "zoom": zoom})
    assert not page.exception
    assert len(figure_of(page, "tasks_heatmap")["layout"]["yaxis"]["ticktext"]) == 6


def test_a_zoom_into_pooled_cells_asks_for_the_experts_beneath_them():
    table = xr.DataArray(
        np.arange(2 * 1 * 10, dtype=float).reshape(2, 1, 10),
        dims=("group", "layer", "expert"),
        coords={"group": ["a", "b"], "layer": ["L00"], "expert": np.arange(10)},
    )
    exists = xr.DataArray(np.ones((1, 10), bool), dims=("layer", "expert"), coords={"layer": ["L00"]})
    cells = cells_of(table, exists=exists, most_columns=4)  # columns of 3, 3, 3 and 1
    seen = Range(x=(0.6, 2.4), y=(1.4, 0.6))  # the second and third of them, the second row
    assert Window.of_range(seen, cells, origin=(0, 0)) == Window(rows=(1, 2), columns=(3, 9))
    assert Window.of_range(Range(x=(2.6, 9.0), y=(-3.0, 3.0)), cells, origin=(5, 100)) == Window(
        rows=(5, 7), columns=(109, 110)
    )
    text = Window(rows=(1, 2), columns=(3, 9)).to_text(ASKED, shape=(2, 10))
    assert Window.from_text(text, ASKED, shape=(2, 10)) == Window(rows=(1, 2), columns=(3, 9))


def test_both_trees_are_drawn_and_say_what_they_join(open_app):
    page = open_app("tasks", {"run": "even", "columns": "clustered"})
    drawn = figure_of(page, "tasks_heatmap")["data"]
    assert [each["xaxis"] for each in drawn if each.get("yaxis") == "y5"] == ["x"]
    assert [each["yaxis"] for each in drawn if each.get("xaxis") == "x3"] == ["y"]
    said = text_of(page)
    assert "rows by the lift of all 24 experts and columns by the lift of all 6 tasks; never what is pooled" in said


@pytest.mark.parametrize("orders", [("even", "even"), ("even", "load")])
@pytest.mark.parametrize("over", ["task", "task_type"])
def test_orders_by_a_metric(open_app, orders, over):
    page = open_app("tasks", {"run": "even", "rows": orders[0], "columns": orders[1], "over": over})
    assert not page.exception
    names = figure_of(page, "tasks_heatmap")["data"][0]["text"]
    assert len({name.partition(" · ")[2] for name in names[0]}) == 24


def test_the_busiest_expert_comes_first_by_load(open_app):
    page = open_app("tasks", {"run": "skewed", "columns": "load"})
    assert figure_of(page, "tasks_heatmap")["data"][0]["text"][0][0].endswith("L02·E3")


def test_a_large_run_is_shown_before_its_test_and_its_orders_are_there(open_app, monkeypatch):
    waits = {"on": True}

    def beside(trace, function, *, what, slow, **options):
        assert slow
        return None if waits["on"] else function(trace, **options)

    monkeypatch.setattr("app.views.tasks.orders._MOST_AT_ONCE", 10)
    monkeypatch.setattr("app.views.tasks.orders.slow_answers.tables", beside)
    query = {"run": "even", "columns": "clustered"}
    first = open_app("tasks", query)
    assert not first.exception
    assert figure_of(first, "tasks_heatmap")["layout"]["xaxis"]["title"]["text"] == "expert, by layer"
    assert "beyond chance" not in text_of(first)
    waits["on"] = False
    then = open_app("tasks", query)
    assert "cells differ from the average beyond chance" in text_of(then)
    assert "The trees (Ward" in text_of(then)


def test_a_filter_of_tasks_takes_branches_out_of_the_tree(open_app):
    page = open_app("tasks", {"run": "even", "tasks": "facts,spans,topics"})
    (tree,) = (each for each in figure_of(page, "tasks_heatmap")["data"] if each.get("xaxis") == "x3")
    # Two joins of three rows, four corners each and a gap.
    assert len(np.frombuffer(base64.b64decode(tree["y"]["bdata"]), tree["y"]["dtype"])) == 10
