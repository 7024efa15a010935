from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.lines import Track, layer_tracks, training_curves

BALANCE = pd.DataFrame(
    {"cv": [0.1, 0.9], "cv_low": [0.05, 0.8], "cv_high": [0.2, 1.0], "gini": [0.2, 0.6]},
    index=pd.Index(["L00", "L01"], name="layer"),
)


def test_a_track_shows_values_intervals_and_who_passes_the_threshold():
    figure = layer_tracks(BALANCE, [Track(column="cv", title="CV", threshold=0.5), Track(column="gini", title="Gini")])
    cv, gini = figure.data
    assert list(cv.x) == [0.1, 0.9]
    assert list(cv.y) == [0, 1]
    assert cv.error_x.array.tolist() == pytest.approx([0.1, 0.1])
    assert cv.marker.color[0] != cv.marker.color[1]
    assert gini.error_x.array is None
    assert [shape.x0 for shape in figure.layout.shapes] == [0.5]
    assert [figure.layout.xaxis.title.text, figure.layout.xaxis2.title.text] == ["CV", "Gini"]
    assert figure.layout.xaxis.domain[1] < figure.layout.xaxis2.domain[0]


def test_what_cannot_be_negative_is_not_drawn_below_zero():
    table = BALANCE.assign(entropy=0.0, change=[-1.0, 1.0])
    tracks = [Track(column="entropy", title="Entropy"), Track(column="change", title="Change")]
    figure = layer_tracks(table, tracks)
    assert [figure.layout.xaxis.rangemode, figure.layout.xaxis2.rangemode] == ["nonnegative", "normal"]


def test_below_a_threshold_can_be_the_worse_side():
    track = Track(column="gini", title="evenness", threshold=0.5, above_is_worse=False)
    colors = layer_tracks(BALANCE, [track]).data[0].marker.color
    assert colors[0] != colors[1]


def test_another_run_is_drawn_where_layers_are_shared():
    other = BALANCE.rename(index={"L00": "L99"})
    figure = layer_tracks(BALANCE, [Track(column="cv", title="CV")], other=other, names=("here", "there"))
    here, there = figure.data
    assert (here.name, there.name) == ("here", "there")
    assert list(there.x) == [0.9]
    assert there.y[0] == pytest.approx(1.14)  # beside the dot of this run, in the same row


def test_training_curves_have_a_line_a_layer_from_early_to_late():
    table = pd.DataFrame({"step": [200, 100, 100, 200], "layer": ["L0", "L0", "L1", "L1"], "v": [2.0, 1.0, 3.0, 4.0]})
    figure = training_curves(table, value="v", value_title="max ÷ mean", reference=1.0, reference_name="even")
    first, second = figure.data
    assert list(first.x) == [100, 200]
    assert list(first.y) == [1.0, 2.0]
    assert second.name == "L1"
    assert list(figure.layout.xaxis.ticktext) == ["100", "200"]
    assert figure.layout.shapes[0].y0 == 1.0


def test_a_layer_without_a_number_leaves_a_gap():
    table = BALANCE.assign(cv=[np.nan, 0.9])
    figure = layer_tracks(table, [Track(column="cv", title="CV", threshold=0.5)])
    assert np.isnan(figure.data[0].x[0])


def test_snapshots_that_would_lie_on_one_another_are_spaced_evenly_and_say_so():
    steps = [0, 300, 3000, 22000]
    table = pd.DataFrame({"step": steps, "layer": "L0", "v": [1.0, 2.0, 3.0, 4.0]})
    figure = training_curves(table, value="v", value_title="v")
    assert list(figure.data[0].x) == [0, 1, 2, 3]
    assert list(figure.data[0].customdata) == steps
    assert list(figure.layout.xaxis.ticktext) == ["0", "300", "3,000", "22,000"]
    assert "not to scale" in figure.layout.xaxis.title.text
    spread = training_curves(table.assign(step=[0, 7000, 14000, 22000]), value="v", value_title="v")
    assert list(spread.data[0].x) == [0, 7000, 14000, 22000]
