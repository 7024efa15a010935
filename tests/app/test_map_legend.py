from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from figures.scatter import PointColor, scatter
from tests.adapter_traces import hyper_moe_trace, pha_trace
from tests.app.conftest import figure_of


def hidden_in(page: AppTest, key: str = "map_prompt") -> set[str]:
    traces = figure_of(page, key)["data"]
    return {trace["name"] for trace in traces if trace.get("visible") == "legendonly"}


def test_the_address_says_which_groups_the_legend_leaves_out(open_app):
    where = {"run": "even", "of": "prompt", "layout": "pca"}
    shown = [trace["name"] for trace in figure_of(open_app("map", where), "map_prompt")["data"]]
    some = shown[1:3]
    page = open_app("map", where | {"hidden": f"Task~{','.join(some)}"})
    assert not page.exception
    assert hidden_in(page) == set(some)
    # The names are on the picture as well, and go with their points.
    named = {each["text"] for each in figure_of(page, "map_prompt")["layout"].get("annotations", ())}
    assert not named & {f"<b>{each}</b>" for each in some}


@pytest.mark.parametrize("hidden", ["Task~no such group", "Type~{task}", "no coloring at all", "~,,", "%~%"])
def test_groups_of_another_coloring_or_of_none_hide_nothing(open_app, hidden):
    where = {"run": "even", "of": "prompt", "layout": "pca"}
    page = open_app("map", where | {"hidden": hidden.format(task="facts")})
    assert not page.exception
    assert hidden_in(page) == set()


@pytest.mark.parametrize(
    ("trace", "view", "hidden"),
    [(pha_trace(seed=0), "adapters", "Task~{}"), (hyper_moe_trace(seed=0), "unselected", "Selected expert~{}")],
)
def test_maps_of_adapters_keep_their_legend_in_the_address_as_well(app_on, trace, view, hidden):
    key = f"{view}_map"
    some = figure_of(app_on(trace, view, {"layout": "pca"}), key)["data"][0]["name"]
    page = app_on(trace, view, {"layout": "pca", "hidden": hidden.format(some)})
    assert not page.exception
    assert hidden_in(page, key) == {some}


def test_any_name_comes_back_as_it_was_hidden():
    def page():
        import streamlit as st

        from app.views.map.hidden import hidden_groups, hide

        names = ("a, b", "~ 100 %", "≥ 3.2", "ab/c?d=e&f", "日本")
        st.button("Hide", on_click=hide, args=("First expert of L01", names))
        st.button("Show", on_click=hide, args=("First expert of L01", ()))
        st.text(repr(hidden_groups("First expert of L01") == names))
        st.text(repr(hidden_groups("First expert of L02")))

    test = AppTest.from_function(page).run()
    test.button[0].click().run()
    assert [each.value for each in test.text] == ["True", "()"]
    test.button[1].click().run()
    assert [each.value for each in test.text] == ["False", "()"]
    assert "hidden" not in test.query_params


def test_a_figure_leaves_names_out_until_they_are_clicked():
    points = pd.DataFrame({"x": np.arange(4.0), "y": np.zeros(4), "name": "", "text": ""})
    color = PointColor(title="Task", values=pd.Series(["a", "b", "a", "<b>"]))
    figure = scatter(points, color=color, mode="light", hidden=("b",))
    assert {trace.name: trace.visible for trace in figure.data}["b"] == "legendonly"
    assert [trace.visible for trace in figure.data if trace.name != "b"] == [None, None]
