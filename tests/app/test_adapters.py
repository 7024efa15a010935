from __future__ import annotations

import base64

import numpy as np
import pytest

from analysis.prototypes import prototype_similarity
from app import cache
from app.views.adapters.sentences import of_cosines
from app.views.map import worker as map_worker
from routing import save_trace
from tests.adapter_traces import hyper_moe_trace, pha_trace
from tests.app.conftest import charts_of, figure_of, text_of
from tests.traces import planted_trace


@pytest.mark.parametrize("hue", ["task", "type", "score"])
def test_prototypes_examples_retrieval_and_likeness_of_a_pha_run(app_on, hue):
    page = app_on(pha_trace(seed=0, n_prompts_a_task=12), "adapters", {"layout": "pca", "hue": hue})
    assert not page.exception
    assert charts_of(page) == [
        "adapters_map",
        "adapters_retrieval",
        "adapters_centers",
        "adapters_prototypes",
        "adapters_alike",
        "adapters_ratio",
    ]
    said = text_of(page)
    assert "84 prompts and 6 prototypes" in said
    assert "beyond what random deals of tasks reach" in said
    assert "The own prototype is retrieved for **" in said
    assert "1 task without a prototype has a row, too" in said
    assert "tasks with like prototypes get like adapters at ρ = **" in said


def test_prototypes_and_adapters_stand_in_the_order_of_the_prototypes_tree(app_on):
    trace = pha_trace(seed=0)
    page = app_on(trace, "adapters", {"layout": "pca"})
    alike = prototype_similarity(trace)
    wanted = alike.sortby("leaf")["prototype"].values.tolist()
    assert wanted != alike["prototype"].values.tolist()
    for key in ("adapters_prototypes", "adapters_alike"):
        assert list(figure_of(page, key)["layout"]["yaxis"]["ticktext"]) == wanted


def test_without_structure_nothing_is_claimed(app_on):
    page = app_on(pha_trace(seed=4, planted=False, n_prompts_a_task=12), "adapters", {"layout": "pca"})
    assert not page.exception
    assert "within what random deals of tasks reach" in text_of(page)


def test_prototypes_are_ringed_and_first_in_the_legend(app_on):
    page = app_on(pha_trace(seed=0), "adapters", {"layout": "pca"})
    drawn = figure_of(page, "adapters_map")["data"]
    (rings,) = (each for each in drawn if each.get("legendrank") == 1)
    assert (rings["name"], rings["marker"]["symbol"]) == ("prototype", "diamond-open")
    points = np.frombuffer(base64.b64decode(rings["customdata"]["bdata"]), rings["customdata"]["dtype"])
    assert len(points) == 6


def test_what_is_selected_is_framed_and_stands_out(app_on):
    page = app_on(pha_trace(seed=0), "adapters", {"layout": "pca", "tasks": "facts"})
    assert len(figure_of(page, "adapters_retrieval")["layout"]["shapes"]) == 1
    picked = [each for each in figure_of(page, "adapters_map")["data"] if each.get("selectedpoints")]
    assert sum(len(each["selectedpoints"]) for each in picked) == 8


def test_adapters_of_selected_sets_are_elsewhere_and_a_plain_run_has_none(app_on, open_app, tmp_path):
    page = app_on(hyper_moe_trace(seed=0), "adapters")
    assert not page.exception
    assert "They are on the Unselected view" in text_of(page)
    save_trace(planted_trace(seed=0, n_prompts_a_task=2), tmp_path / "plain" / "run")
    plain = open_app("adapters", runs=tmp_path / "plain")
    assert not plain.exception
    assert "PHA does: choose a run of one" in text_of(plain)


def test_a_umap_of_examples_is_asked_of_the_worker_that_makes_maps(app_on):
    page = app_on(pha_trace(seed=0), "adapters", {"layout": "umap"})
    cache.jobs().stop()
    assert not page.exception
    assert "meanwhile these are principal components" in text_of(page)
    assert "instances" in map_worker._MAKERS


def test_cosines_are_told_in_as_many_digits_as_they_differ_in():
    assert of_cosines(np.array([[np.nan, -0.2], [0.71, 0.5]])) == "Cosines from -0.20 to 0.71, median 0.50."
    little = np.array([[np.nan, -0.0131], [0.0098, -0.0012]])
    assert of_cosines(little) == "Cosines from -0.013 to 0.010, median -0.001."
    assert of_cosines(np.array([0.5, 0.5])) == "Cosines from 0.50 to 0.50, median 0.50."
