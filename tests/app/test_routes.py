from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.views.routes.snapshots import route_snapshots
from routing import RoutingTrace, TraceError
from tests.adapter_traces import hyper_moe_trace, pha_trace, task_moe_trace
from tests.app.conftest import charts_of, figure_of, text_of


def of_checkpoint(trace: RoutingTrace, folder: Path) -> RoutingTrace:
    """The same run, recorded from a folder."""
    return RoutingTrace(replace(trace.storage, provenance=replace(trace.provenance, model=str(folder))))


def write_snapshots(folder: Path, trace: RoutingTrace, *, n_layers: int | None = None) -> None:
    """Routes of three steps of two stages, from even to the run's own."""
    folder.mkdir(exist_ok=True)
    last = trace.vectors["route_softmax_t1"].to_numpy()
    even = np.full_like(last, 1 / last.shape[2])
    routes = np.stack([even, (even + last) / 2, last])[:, :, :n_layers]
    np.savez_compressed(
        folder / "routes.npz",
        stage=np.array([1, 2, 2]),
        step=np.array([100, 50, 200]),
        temperature=np.array([4.0, 2.0, 0.5], np.float32),
        route_t1=routes,
        route=routes,
        tasks=np.array(trace.vectors["route"]["task_row"].values),
    )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("rows", ["model", "type", "clustered"])
def test_the_route_map_in_every_order(app_on, soft, rows):
    trace = task_moe_trace(seed=0, soft=soft)
    page = app_on(trace, "routes", {"rows": rows})
    assert not page.exception
    assert charts_of(page) == ["routes_map", "routes_features", "routes_entropy", "routes_alike"]
    shown = figure_of(page, "routes_map")["layout"]["yaxis"]["ticktext"]
    assert sorted(shown) == sorted(trace.tasks)
    assert (shown == list(trace.tasks)) == (rows == "model") or rows == "type"
    said = text_of(page)
    assert "adjusted mutual information of **" in said
    assert "Tasks part ways most in" in said
    assert "No routes of earlier steps lie beside this run" in said


def test_without_structure_nothing_is_claimed(app_on):
    page = app_on(task_moe_trace(seed=0, specialists={}), "routes", {"routes": "route_softmax_t1"})
    assert not page.exception
    assert "within chance" in text_of(page)
    assert "no single expert goes with the type" in text_of(page)


def test_routes_over_training_beside_the_checkpoint_are_shown_step_by_step(app_on, tmp_path):
    trace = task_moe_trace(seed=0, soft=True)
    write_snapshots(tmp_path / "model", trace)
    page = app_on(of_checkpoint(trace, tmp_path / "model"), "routes", {"step": "150"})
    assert not page.exception
    assert {"routes_snapshot", "routes_over_training", "routes_correlations"} <= set(charts_of(page))
    said = text_of(page)
    assert "step 50 of stage 2" in said
    assert "From step 100 to 300 the specialization of a layer went from 0.00 to **" in said
    assert "Beyond the largest of all experts under random deals" in said


def test_snapshots_count_the_steps_of_all_stages(tmp_path):
    trace = task_moe_trace(seed=0)
    write_snapshots(tmp_path, trace)
    found = route_snapshots(of_checkpoint(trace, tmp_path))
    assert list(found.traces) == [100, 150, 300]
    assert found.stages[300] == (2, 200)
    np.testing.assert_allclose(
        found.traces[300].vectors["route_softmax_t1"], trace.vectors["route_softmax_t1"], atol=1e-6
    )
    assert found.traces[300].task_types == trace.task_types
    assert route_snapshots(trace) is None


def test_types_that_the_file_tells_are_those_of_the_snapshots(tmp_path):
    trace = task_moe_trace(seed=0)
    write_snapshots(tmp_path, trace)
    parts = dict(np.load(tmp_path / "routes.npz"))
    told = np.array([f"type {number % 2}" for number, _ in enumerate(parts["tasks"])])
    np.savez(tmp_path / "routes.npz", **parts, task_types=told)
    found = route_snapshots(of_checkpoint(trace, tmp_path))
    assert list(found.traces[300].task_types.values()) == told.tolist()


def test_snapshots_of_another_training_are_not_taken_for_how_the_run_came_to_be(app_on, tmp_path):
    write_snapshots(tmp_path / "model", task_moe_trace(seed=0))
    replaced = of_checkpoint(task_moe_trace(seed=5), tmp_path / "model")
    assert not route_snapshots(replaced).lead_here
    assert route_snapshots(of_checkpoint(task_moe_trace(seed=0), tmp_path / "model")).lead_here
    page = app_on(replaced, "routes")
    assert not page.exception
    assert "they are of another training" in text_of(page)
    assert "routes_snapshot" not in charts_of(page)


def test_snapshots_of_another_model_are_refused_in_a_sentence(app_on, tmp_path):
    trace = task_moe_trace(seed=0)
    write_snapshots(tmp_path / "model", trace, n_layers=2)
    with pytest.raises(TraceError, match="this run has 4 layers"):
        route_snapshots(of_checkpoint(trace, tmp_path / "model"))
    page = app_on(of_checkpoint(trace, tmp_path / "model"), "routes")
    assert not page.exception
    assert "this run has 4 layers" in page.error[0].value.replace("\\", "")


@pytest.mark.parametrize(
    ("trace", "words"),
    [(hyper_moe_trace(seed=0), "decide token by token"), (pha_trace(seed=0), "retrieves prototypes of tasks")],
)
def test_other_runs_are_told_where_to_look(app_on, trace, words):
    page = app_on(trace, "routes")
    assert not page.exception
    assert words in text_of(page)


def test_what_is_selected_is_framed_and_narrows_rows_and_layers(app_on):
    trace = task_moe_trace(seed=0)
    query = {"tasks": ",".join(trace.tasks[:3]), "layers": "enc00,dec00", "experts": "enc00.E1"}
    page = app_on(trace, "routes", query)
    assert not page.exception
    drawn = figure_of(page, "routes_map")["layout"]
    assert sorted(drawn["yaxis"]["ticktext"]) == sorted(trace.tasks[:3])
    assert len([each for each in drawn["shapes"] if each["type"] == "rect"]) == 1
