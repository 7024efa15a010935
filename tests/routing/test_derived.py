"""Results beside a trace: found again for the same content and parameters, never for others."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from routing import TraceError, load_derived, open_trace, save_derived, save_trace
from tests.traces import random_trace


@pytest.fixture
def trace(tmp_path):
    return open_trace(save_trace(random_trace(seed=0), tmp_path / "run"))


def test_results_come_back(trace):
    points = pd.DataFrame({"item": ["L00·E1", "L01·E2"], "x": [0.5, np.nan]})
    indexed = pd.DataFrame({"value": [1, 2]}, index=pd.Index(["a", "b"], name="layer"))
    labelled = xr.DataArray(
        np.arange(4.0).reshape(2, 2), dims=("task", "expert"), coords={"task": ["a", "b"]}, attrs={"unit": "share"}
    )
    results = {
        "points": points,
        "indexed": indexed,
        "labelled": labelled,
        "array": np.arange(3),
        "quality": {"trust": 0.9},
    }
    folder = save_derived(trace, "map", results, params={"seed": 0, "n_neighbors": 15})
    assert folder is not None
    assert folder.is_relative_to(trace.path / "derived" / "map")
    found = load_derived(trace, "map", params={"n_neighbors": 15, "seed": 0})
    pd.testing.assert_frame_equal(found["points"], points)
    pd.testing.assert_frame_equal(found["indexed"], indexed)
    xr.testing.assert_identical(found["labelled"], labelled)
    assert found["array"].tolist() == [0, 1, 2]
    assert found["quality"] == {"trust": 0.9}


def test_other_parameters_and_other_content_find_nothing(trace, tmp_path):
    save_derived(trace, "map", {"a": 1}, params={"seed": 0})
    assert load_derived(trace, "map", params={"seed": 1}) is None
    assert load_derived(trace, "other", params={"seed": 0}) is None
    changed = trace.prompts.assign(text="other")
    other = random_trace(seed=0)
    other.prompts["text"] = changed["text"]
    moved = open_trace(save_trace(other, tmp_path / "other"))
    (trace.path / "derived").rename(moved.path / "derived")
    assert load_derived(moved, "map", params={"seed": 0}) is None


def test_what_is_damaged_counts_as_missing_and_can_be_made_again(trace):
    folder = save_derived(trace, "map", {"points": pd.DataFrame({"x": [1]})}, params={})
    (folder / "points.parquet").write_bytes(b"PAR1")
    assert load_derived(trace, "map", params={}) is None
    save_derived(trace, "map", {"points": pd.DataFrame({"x": [2]})}, params={})
    assert load_derived(trace, "map", params={})["points"]["x"].tolist() == [2]
    (folder / "result.json").write_text("{")
    assert load_derived(trace, "map", params={}) is None


def test_a_trace_in_memory_keeps_nothing():
    trace = random_trace(seed=0)
    assert save_derived(trace, "map", {"a": 1}, params={}) is None
    assert load_derived(trace, "map", params={}) is None


def test_a_name_cannot_leave_the_folder(trace):
    with pytest.raises(TraceError, match="cannot name a result"):
        save_derived(trace, "../map", {"a": 1}, params={})
