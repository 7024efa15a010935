from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest

from analysis.maps import routing_map
from app import cache
from app.jobs import Job, Jobs
from app.views.map.adapters import selection_of_adapters
from app.views.map.kept import MapQuestion, groups_or_job, make_groups, strongest_groups, umap_or_job
from app.views.map.points import color_of, described, picked_rows
from app.views.map.sentences import of_map
from app.views.map.tokens import token_contexts
from routing import Selection, open_trace, save_trace
from tests.adapter_traces import hyper_moe_trace, pha_trace
from tests.app.conftest import charts_of, figure_of, text_of
from tests.counted import counted
from tests.traces import null_trace, planted_trace, trace_of


def names(page, of: str) -> list[str]:
    return [trace["name"] for trace in figure_of(page, f"map_{of}")["data"] if trace["type"] == "scattergl"]


def test_experts_are_placed_by_their_tasks_and_the_map_says_how_far_to_believe_it(open_app):
    page = open_app("map", {"run": "even", "layout": "pca"})
    assert not page.exception
    said = text_of(page)
    assert "24 experts by the lift of their tasks" in said
    assert "Trustworthiness **" in said
    assert "With its places shuffled this map would keep" in said
    assert "Component 1 (log₂ ratio)" in json.dumps(figure_of(page, "map_expert")["layout"], ensure_ascii=False)


@pytest.mark.parametrize("color", ["task", "type", "cluster", "layer"])
def test_experts_in_every_color(open_app, color):
    page = open_app("map", {"run": "even", "layout": "pca", "color": color})
    assert not page.exception
    assert ("found in all 6 features and not on this picture" in text_of(page)) == (color == "cluster")


@pytest.mark.parametrize(("color", "expected"), [("task", "facts"), ("type", "knowledge"), ("score", "right")])
def test_prompts_in_every_color(open_app, color, expected):
    page = open_app("map", {"run": "even", "layout": "pca", "of": "prompt", "color": color})
    assert not page.exception
    assert expected in names(page, "prompt")


def test_tokens_on_the_page(open_app):
    page = open_app("map", {"run": "even", "layout": "pca", "of": "token", "color": "phase"})
    assert not page.exception
    assert "360 tokens by the weighted overlap of their routes" in text_of(page)
    assert names(page, "token") == ["prompt", "generated"]


@pytest.mark.parametrize("color", ["task", "type", "phase", "nll", "margin", "position"])
def test_tokens_in_every_color(color):
    trace = planted_trace(seed=0, n_tasks=3)
    points = routing_map(trace, of="token", method="pca").points
    found, said = color_of(trace, points, of="token", color=color)
    assert found.is_numeric == (color in ("nll", "margin", "position"))
    assert len(found.values) == len(points)
    # 2 % at the upper end are cut off, and nothing predicts the first token of each of 30 prompts of 14
    assert ("have the color of" in said) == (color in ("nll", "margin"))
    assert ("7.1\N{NO-BREAK SPACE}% have none" in said) == (color == "nll")


def test_a_sample_of_tokens_is_announced(open_app):
    page = open_app("map", {"run": "even", "layout": "pca", "of": "token", "values": "selected", "size": "1000"})
    assert "tokens, drawn at random: as many" not in text_of(page)  # the run has 360 tokens
    page = open_app("map", {"run": "even", "layout": "pca", "of": "token", "focus": "facts-001@3"})
    assert "1 token picked" in text_of(page)
    assert "⟦" in page.dataframe[0].value["lead"].iloc[0]


def test_adapters_on_the_page(app_on):
    query = {"layout": "pca", "of": "adapter", "color": "uses", "values": "selection_embedding"}
    page = app_on(hyper_moe_trace(seed=0), "map", query)
    assert not page.exception
    assert "adapters by their selection embedding" in text_of(page)


@pytest.mark.parametrize("color", ["task", "type", "site", "uses"])
def test_adapters_in_every_color(color):
    trace = hyper_moe_trace(seed=0)
    points = described(trace, routing_map(trace, of="adapter", method="pca").points, of="adapter")
    found, _ = color_of(trace, points, of="adapter", color=color)
    assert found.is_numeric == (color == "uses")
    assert points["name"].str.match(r"L\d\d · E\d E\d").all()
    assert points["text"].str.contains("used by").all()


def test_two_layouts_of_the_same_items_stand_side_by_side(open_app, monkeypatch):
    made = {}

    def at_once(trace, question, *, jobs):
        options = {name: value for name, value in vars(question).items() if name != "min_dist"}
        made["question"] = question
        return routing_map(trace, method="pca", **options)

    monkeypatch.setattr("app.views.map.view.umap_or_job", at_once)
    page = open_app("map", {"run": "even", "layout": "both", "of": "token", "size": "1000"})
    assert not page.exception
    assert charts_of(page) == ["map_token", "map_token_beside"]
    assert made["question"].most_items == 1000


def test_picking_adapters_selects_what_they_were_made_from():
    trace = hyper_moe_trace(seed=0)
    points = routing_map(trace, of="adapter", method="pca").points
    row = points.iloc[3]
    picked = selection_of_adapters(trace, points.iloc[[3]], Selection())
    assert picked.experts == tuple((row["site"], int(each)) for each in row["key"].split())
    assert 3 in picked_rows(points, picked, of="adapter", trace=trace)
    of_tasks = pha_trace(seed=0)
    points = routing_map(of_tasks, of="adapter", method="pca").points
    assert selection_of_adapters(of_tasks, points.iloc[[0]], Selection()).tasks == (points["key"][0],)


def test_the_words_around_a_token_by_hand():
    # recorded out of order, as generated tokens of a batch are
    tokens = pd.DataFrame({"prompt": [0, 1, 0, 1], "position": [1, 0, 0, 1], "token_id": [0, 1, 2, 3]})
    words = {0: " zero", 1: " one", 2: " two", 3: " three"}
    trace = trace_of([[0, 1]] * 4, tokens=tokens, prompts=[0, 1, 0, 1], vocabulary=words)
    found = token_contexts(trace, most_items=4, seed=0)
    assert found.to_dict() == {0: "two⟦ zero⟧", 1: "⟦ one⟧ three", 2: "⟦ two⟧ zero", 3: "one⟦ three⟧"}


def test_the_sentence_of_a_map_tells_it_from_its_shuffle_and_its_components():
    trace = planted_trace(seed=0, n_tasks=3)
    shown = routing_map(trace, of="prompt", method="pca")
    said = of_map(shown, noun="prompt", beside=shown.quality)
    assert f"**{shown.quality.trustworthiness:.2f}**" in said
    assert f"would keep {shown.quality.shuffled_trustworthiness:.2f}, " in said
    assert f"the principal components keep {shown.quality.trustworthiness:.2f}, " in said


def test_what_is_selected_stands_out_and_is_listed(open_app):
    page = open_app("map", {"run": "even", "layout": "pca", "experts": "L00.E1,L02.E3"})
    assert "2 experts picked" in text_of(page)
    assert sorted(page.dataframe[0].value["name"]) == ["L00·E1", "L02·E3"]
    picked = [
        len(trace["selectedpoints"]) for trace in figure_of(page, "map_expert")["data"] if trace["type"] == "scattergl"
    ]
    assert sum(picked) == 2


@pytest.mark.parametrize("query", [{"of": "nothing"}, {"color": "score"}, {"near": "-1"}, {"layout": "<b>"}])
def test_an_address_that_makes_no_sense_falls_back(open_app, query):
    page = open_app("map", {"run": "even", "layout": "pca"} | query)
    if query.get("layout"):
        cache.jobs().stop()
    assert not page.exception


def test_counts_alone_still_place_experts(app_on):
    page = app_on(counted(planted_trace(seed=0, n_prompts_a_task=2)), "map", {"layout": "pca"})
    assert not page.exception
    assert "experts by the lift" in text_of(page)


def test_one_token_is_too_few_to_judge_a_map(app_on):
    page = app_on(trace_of([[0, 1]], n_experts=4), "map", {"layout": "pca"})
    assert not page.exception


def points() -> pd.DataFrame:
    return pd.DataFrame(
        {"layer": ["L00", "L00", "L01"], "expert": [0, 1, 0], "prompt": list("abc"), "task": list("xyx")}
    )


@pytest.mark.parametrize(
    ("of", "selection", "rows"),
    [
        ("expert", Selection(), []),
        ("expert", Selection(experts=(("L00", 1),)), [1]),
        ("expert", Selection(layers=("L00",)), [0, 1]),
        ("expert", Selection(layers=("L00", "L01")), []),  # all of them: nothing stands out
        ("prompt", Selection(tasks=("x",)), [0, 2]),
        ("prompt", Selection(prompts=("a", "b"), tasks=("x",)), [0]),
        ("prompt", Selection(experts=(("L00", 1),)), []),
    ],
)
def test_which_points_the_selection_names(of, selection, rows):
    assert picked_rows(points(), selection, of=of).tolist() == rows


def test_an_expert_serves_the_task_that_was_planted_and_none_by_chance():
    planted = planted_trace(seed=3, n_tasks=4, n_prompts_a_task=20, specialists={"facts": (1, 5)}, n_layers=2)
    strongest = strongest_groups(planted, over="task")
    assert strongest.loc[("L01", 5), "group"] == "facts"
    assert strongest.loc[("L01", 5), "lift"] > 0.5
    assert strongest_groups(null_trace(seed=3, n_prompts_a_task=20), over="task")["group"].notna().mean() < 0.1


@pytest.mark.slow
def test_a_umap_is_made_beside_the_app_once(tmp_path, monkeypatch):
    # 24 points take the interpreter a second; to compile UMAP for them, a dozen.
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    save_trace(planted_trace(seed=1, n_tasks=3, n_prompts_a_task=8, n_layers=2), tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    question = MapQuestion(of="prompt", values="rate", n_neighbors=5, min_dist=0.1, seed=0)
    jobs = Jobs()
    try:
        deadline = time.monotonic() + 180
        while isinstance(made := umap_or_job(trace, question, jobs=jobs), Job):
            assert made.state != "failed", made.message
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        jobs.stop()
    assert made.method == "umap"
    assert np.isfinite(made.points[["x", "y"]].to_numpy()).all()
    # What was made is found again without a job.
    assert umap_or_job(trace, question, jobs=None).points.equals(made.points)


def test_groups_of_prompts_are_found_once_and_agree_with_planted_tasks(tmp_path):
    save_trace(planted_trace(seed=1, n_tasks=3, n_prompts_a_task=12, n_layers=2, strength=5.0), tmp_path / "run")
    trace = open_trace(tmp_path / "run")
    make_groups(trace, tmp_path, values="rate", seed=0)
    groups = groups_or_job(trace, values="rate", seed=0, jobs=None)
    assert groups.with_tasks.ami > groups.with_tasks.null_95
    assert groups.clustering.labels["item"].values.tolist() == trace.prompts["prompt"].tolist()
