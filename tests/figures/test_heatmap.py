from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analysis.load import expert_load
from figures.grid import ColorScale, log2_scale, ratio_text, smallest, thinned
from figures.heatmap import load_heatmap
from figures.theme import INKS, PERCENT_TICKS
from tests.traces import encoder_decoder_trace, planted_trace, trace_of


def test_a_cell_is_the_doublings_of_the_load_over_the_even_share():
    # Four experts, 8 assignments: expert 0 has 4 of them (twice the even share of 2), 1 and 2 have 2, 3 none.
    trace = trace_of([[0, 1], [0, 1], [0, 2], [0, 2]], n_experts=4)
    figure = load_heatmap(expert_load(trace), exists=trace.expert_exists)
    cells, crosses, named = figure.data
    assert cells.z[0].tolist() == pytest.approx([1, 0, 0, -1])
    # The idle expert sits at the end of the scale, and is marked: it is less than any number there.
    assert figure.layout.coloraxis.cmin == -1 == -figure.layout.coloraxis.cmax
    assert (list(crosses.x), list(crosses.y)) == ([3], [0])
    # It stands out from the end of the scale there, and from the page in the legend.
    assert (crosses.marker.line.color, named.marker.line.color) == (INKS["light"].paper, INKS["light"].text)
    assert cells.customdata[0, 0].tolist() == pytest.approx([2.0, 0.5])
    assert cells.z.dtype == np.float32


def test_what_a_layer_does_not_have_is_hatched_not_zero():
    trace = encoder_decoder_trace()
    figure = load_heatmap(expert_load(trace), exists=trace.expert_exists)
    cells = figure.data[0]
    assert np.isnan(cells.z[2, 4:]).all()
    hatch = next(each for each in figure.data if each.name == "not in this layer")
    # Experts 4 to 7 of the third layer, one rectangle.
    assert (min(x for x in hatch.x if x is not None), max(x for x in hatch.x if x is not None)) == (3.5, 7.5)
    assert list(figure.layout.yaxis.ticktext) == ["enc01", "enc03", "dec01"]


def test_the_scale_is_symmetric_and_ends_at_eight():
    trace = planted_trace(seed=0, popular={(1, 2): 9.0}, n_experts=32, top_k=1)
    axis = load_heatmap(expert_load(trace), exists=trace.expert_exists).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-3, 3)
    assert list(axis.colorbar.ticktext) == ["≤ ×⅛", "×¼", "×½", "×1", "×2", "×4", "≥ ×8"]


def test_a_picked_expert_is_framed_and_one_of_another_run_is_not():
    trace = planted_trace(seed=0)
    figure = load_heatmap(expert_load(trace), exists=trace.expert_exists, selected=[("L01", 3), ("L99", 0)])
    (frame,) = figure.layout.shapes
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (2.5, 3.5, 0.5, 1.5)


def test_a_layer_that_routed_nothing_is_hatched_as_empty():
    load = xr.DataArray(
        [[0.5, 0.5], [np.nan, np.nan]], dims=("layer", "expert"), coords={"layer": ["L0", "L1"], "expert": [0, 1]}
    )
    figure = load_heatmap(load, exists=xr.ones_like(load, dtype=bool))
    assert {trace.name for trace in figure.data} >= {"no tokens"}


def test_numbers_travel_in_the_smallest_type():
    assert smallest(np.array([0.1, 2.0])).dtype == np.float32
    assert smallest(np.array([0, 255])).dtype == np.uint8
    assert smallest(np.array([-1, 300])).dtype == np.int16
    assert smallest(np.array([1 << 20])).dtype == np.int32
    assert smallest(np.array([True])).dtype == np.uint8
    assert smallest(np.zeros(0, dtype=np.int64)).dtype == np.uint8


def test_factors_are_written_as_they_are_read():
    assert [ratio_text(2.0**power) for power in (-4, -1, 0, 3)] == ["×1/16", "×½", "×1", "×8"]
    assert thinned(list("abcdefg"), most=3) == [0, 3, 6]


def test_a_scale_names_its_unit():
    axis = ColorScale(title="share of tokens", low=0, high=1, tick_format=PERCENT_TICKS).layout("dark")
    assert axis["colorscale"] == "Cividis"
    assert axis["colorbar"]["title"]["text"] == "share of tokens"
    assert axis["colorbar"]["tickformat"] == PERCENT_TICKS


def test_two_runs_share_a_scale():
    even = planted_trace(seed=0, specialists={})
    skewed = planted_trace(seed=0, specialists={}, popular={(1, 2): 3.0})
    loads = [expert_load(trace) for trace in (even, skewed)]
    alone = load_heatmap(loads[0], exists=even.expert_exists)
    pair = [load_heatmap(load, exists=even.expert_exists, beside=other) for load, other in (loads, reversed(loads))]
    assert alone.layout.coloraxis.cmax < pair[0].layout.coloraxis.cmax == pair[1].layout.coloraxis.cmax


def test_a_scale_of_factors_is_symmetric_and_says_where_it_is_cut_off():
    scale = log2_scale([np.array([0.2, -2.6, np.nan, -np.inf])], title="lift", most=4)
    assert (scale.low, scale.high) == (-3, 3)
    assert scale.ticks == (-3, -2, -1, 0, 1, 2, 3)
    cut = log2_scale([np.array([0.2, -2.6, 5.0])], title="lift", most=2)
    assert (cut.texts[0], cut.texts[-1]) == ("≤ ×¼", "≥ ×4")
    assert log2_scale([np.zeros(0)], title="lift", most=4).texts == ("×½", "×1", "×2")
    # Two of a hundred values may pass the ends.
    far = np.concatenate([np.linspace(-1, 1, 98), [6.0, -6.0]])
    assert log2_scale([far], title="lift", most=8, quantile=0.97).high == 1
