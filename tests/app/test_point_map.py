from __future__ import annotations

import json
import struct

import numpy as np
import pandas as pd
import pytest

from analysis.signatures import signatures
from analysis.token_places import token_places
from app.components.point_map import Entry, Kinds, kinds_bytes, places_bytes
from app.views.map.cloud import lasso_tasks
from app.views.map.cloud_colors import kinds_of, prompt_columns, selected_points, with_rest
from app.views.map.neighbors import nearest_of_items, token_at
from routing import Selection
from tests.app.conftest import text_of
from tests.counted import counted
from tests.traces import planted_trace, trace_of

CLOUD = {"of": "token", "size": "100000"}


def opened(sent: bytes) -> tuple[dict, bytes]:
    (size,) = struct.unpack("<I", sent[:4])
    return json.loads(sent[4 : 4 + size]), sent[4 + size :]


def test_places_travel_in_four_bytes_with_one_scale_for_both_axes():
    points = pd.DataFrame({"x": [-1.0, 3.0, 1.0], "y": [0.0, 1.0, 0.5]})
    sent, frame = places_bytes(points, key="map")
    head, body = opened(sent)
    # The wider axis, 4 units, takes all 65,535 steps; the other a quarter of them.
    assert np.frombuffer(body, "<u2").tolist() == [0, 0, 65535, 16384, 32768, 8192]
    assert head["extent"] == pytest.approx([65535, 16383.75])
    assert frame.place(-1.0, 1.0) == pytest.approx((0, 16383.75))
    assert places_bytes(points, key="map")[1].id == frame.id


def test_one_place_alone_has_a_scale():
    _, frame = places_bytes(pd.DataFrame({"x": [2.0], "y": [2.0]}), key="map")
    assert frame.place(2.0, 2.0) == (0, 0)


def test_colors_travel_in_a_byte_after_the_legend():
    kinds = Kinds(
        title="T",
        codes=np.array([0, 2, 1, 2]),
        colors=("#ff0000", "#00ff00", "#0000ff"),
        entries=(Entry("a", 0, 1), Entry("b", 1, 3)),
    )
    head, body = opened(kinds_bytes(kinds, key="map"))
    assert list(body) == [0, 2, 1, 2]
    assert head["colors"] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert [(each["name"], each["from"], each["to"], each["count"]) for each in head["entries"]] == [
        ("a", 0, 1, 1),
        ("b", 1, 3, 3),
    ]


@pytest.mark.parametrize(
    "color", ["task", "type", "expert", "phase", "nll", "position", "prompt.score", "prompt.level"]
)
def test_every_color_has_a_legend_that_covers_all_points(color):
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=4)
    trace.prompts["level"] = ["easy", "hard"] * 6
    points = token_places(trace).points
    found = kinds_of(trace, points, color=color, layer="L01", mode="dark")
    covered = {code for entry in found.entries for code in range(entry.start, entry.stop)}
    assert set(found.codes.tolist()) <= covered
    assert covered <= set(range(len(found.colors)))
    assert all(len(each) == 7 for each in found.colors)
    if color == "prompt.level":
        assert {entry.name: int((found.codes == entry.start).sum()) for entry in found.entries} == {
            "easy": len(points) // 2,
            "hard": len(points) // 2,
        }


def test_the_rest_of_many_kinds_is_called_so():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=4, n_experts=12)
    found = kinds_of(trace, token_places(trace).points, color="expert", layer="L00", mode="light")
    assert len(found.entries) == 8
    assert found.entries[-1].name == "others"


def test_what_is_not_selected_is_gray_and_can_be_hidden():
    # Two prompts of two tokens; token 1 alone is of task a and chose expert 2.
    trace = trace_of([[0, 1], [1, 2], [2, 3], [0, 3]], prompts=[0, 0, 1, 1], tasks=["a", "b"], n_experts=4)
    points = pd.DataFrame({"token": range(4), "prompt": [0, 0, 1, 1], "phase": 0})
    kept = selected_points(trace, points, Selection(tasks=("a",), experts=(("L00", 2),)))
    assert kept.tolist() == [False, True, False, False]
    assert selected_points(trace, points, Selection(layers=("L00",))) is None
    found = with_rest(kinds_of(trace, points, color="task", layer="L00", mode="light"), kept)
    assert found.entries[-1] == Entry("not selected", 2, 3)
    assert found.codes.tolist() == [2, 0, 2, 2]


def test_columns_that_name_every_prompt_are_no_colors():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=4)
    assert "prompt.prompt" not in prompt_columns(trace)
    assert "prompt.text" not in prompt_columns(trace)
    assert prompt_columns(trace)["prompt.score"] == "score"


def test_a_large_map_says_how_far_it_may_be_believed(open_app):
    page = open_app("map", {"run": "even"} | CLOUD)
    assert not page.exception
    said = text_of(page)
    assert "360 tokens by the weighted overlap of their routes" in said
    assert "The two components, found in 360 tokens" in said
    assert "With its places shuffled the map would keep" in said


def test_a_lasso_in_the_link_is_told_against_the_whole_map(open_app):
    everything = "-9,-9;9,-9;9,9;-9,9"
    page = open_app("map", {"run": "even", "lasso": everything} | CLOUD)
    assert "360 tokens in the lasso" in text_of(page)
    table = page.dataframe[0].value
    assert table["ratio"].tolist() == [1.0] * 6
    page.button(key="select_lasso").click().run()
    assert len(page.query_params["prompts"].split(",")) == 36
    page.button(key="clear_lasso").click().run()
    assert "lasso" not in page.query_params


@pytest.mark.parametrize("lasso", ["x", "1,2", "1,2;3", "1,2;3,4;nan,1", "<b>"])
def test_a_lasso_that_makes_no_sense_is_none(open_app, lasso):
    page = open_app("map", {"run": "even", "lasso": lasso} | CLOUD)
    assert not page.exception
    assert "in the lasso" not in text_of(page)


def test_the_neighbors_of_a_picked_token_are_told_with_a_yardstick(open_app):
    page = open_app("map", {"run": "even", "focus": "facts-001@3"} | CLOUD)
    assert not page.exception
    assert "Nearest tokens" in text_of(page)
    assert "By distance in all features, not on the picture" in text_of(page)
    distances = page.dataframe[-1].value["distance"]
    assert len(distances) == 10
    assert distances.is_monotonic_increasing
    page.button(key="go_to_nearest").click().run()
    assert page.query_params["focus"] != "facts-001@3"


def test_the_neighbors_of_an_expert_are_those_of_its_signature(open_app):
    page = open_app("map", {"run": "even", "layout": "pca", "experts": "L01.E2"})
    table = signatures(planted_trace(seed=2, n_tasks=6, n_prompts_a_task=6, n_tokens_a_prompt=10, n_layers=3))
    names, values = table["item"].values, table.to_numpy()
    apart = np.linalg.norm(values - values[names == "L01·E2"], axis=1)
    shown = page.dataframe[-1].value
    assert shown["expert"].tolist() == [names[place] for place in np.argsort(apart, kind="stable")[1:11]]
    assert shown["distance"].tolist() == pytest.approx(sorted(apart)[1:11])
    (chart,) = (each for each in page.get("plotly_chart") if each.key == "map_expert")
    assert "nearest in truth" in (chart.proto.spec or chart.proto.figure.spec)


@pytest.mark.parametrize("query", [{"layout": "pca"}, {"of": "prompt", "layout": "pca"}, CLOUD])
def test_another_run_stands_beside(open_app, query):
    page = open_app("map", {"run": "even", "base": "skewed"} | query)
    assert not page.exception
    said = text_of(page)
    assert "Each map is laid out by itself" in said
    assert "skewed: " in said


def test_beside_a_run_of_counts_there_are_no_tokens(app_on, tmp_path):
    from routing import save_trace

    save_trace(counted(planted_trace(seed=0)), tmp_path / "runs" / "counts")
    page = app_on(planted_trace(seed=0), "map", {"run": "one", "base": "counts", "of": "token", "layout": "pca"})
    assert not page.exception
    assert "does not hold what this map is made of" in text_of(page)


def test_where_the_router_decides_once_a_prompt_there_is_no_cloud(app_on):
    page = app_on(counted(planted_trace(seed=0)), "map", {"layout": "pca"} | CLOUD)
    assert not page.exception
    assert "experts by the lift" in text_of(page)


def test_tasks_in_a_lasso_by_hand():
    trace = trace_of([[0]] * 6, prompts=[0, 0, 1, 1, 1, 1], tasks=["a", "b"], n_experts=4)
    points = pd.DataFrame({"prompt": [0, 0, 1, 1, 1, 1]})
    found = lasso_tasks(trace, points, np.array([0, 1, 2]))
    assert found["task"].tolist() == ["a", "b"]
    assert found["share"].tolist() == pytest.approx([2 / 3, 1 / 3])
    # 2/3 of the lasso and 1/3 of the map are of task a; 1/3 and 2/3 of task b.
    assert found["ratio"].tolist() == pytest.approx([2.0, 0.5])
    assert token_at(trace, prompt=1, position=0) == 2
    assert token_at(trace, prompt=1, position=99) is None


def test_an_item_that_is_not_there_has_no_neighbors():
    trace = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=4)
    assert nearest_of_items(trace, of="expert", values="lift", item="L99·E9").empty
