from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from figures.load_scales import scale_dots
from figures.placement import device_load_heatmap


def load_of(values: list[list[float]]) -> xr.DataArray:
    table = np.array(values, dtype=float)
    return xr.DataArray(
        table,
        dims=("layer", "device"),
        coords={"layer": [f"L{row:02d}" for row in range(len(table))], "device": range(table.shape[1])},
    )


def test_a_device_is_drawn_against_the_mean_of_its_layer_and_names_its_experts():
    load = load_of([[0.5, 0.25, 0.25, 0.0], [0.25] * 4])
    slots = np.array([[0, 1, 2, 3, 4, 5, -1, -1], [7, 6, 5, 4, 3, 2, 1, 1]])
    figure = device_load_heatmap(load, slots=slots)
    (cells,) = (each for each in figure.data if each.type == "heatmap")
    np.testing.assert_allclose(cells.customdata[..., 0], [[2, 1, 1, 0], [1, 1, 1, 1]])
    # Without work it lies at the end of the scale, not beyond it.
    assert cells.z[0].tolist() == [1, 0, 0, -1]
    assert cells.text[0][0] == "L00 · device 0: E0, E1"
    assert cells.text[0][3] == "L00 · device 3: no expert"
    assert cells.text[1][3] == "L01 · device 3: E1"
    assert figure.layout.coloraxis.cmax == 1


def test_two_placements_share_a_scale_and_missing_devices_are_left_out():
    one, other = load_of([[0.9, 0.1, np.nan, np.nan]]), load_of([[0.25] * 4])
    slots = np.array([[0, 1, 2, 3]])
    figures = [device_load_heatmap(load, slots=slots, beside=[one, other], mode="dark") for load in (one, other)]
    assert len({figure.layout.coloraxis.cmax for figure in figures}) == 1
    assert figures[0].data[0].z.shape == (1, 2)


def test_names_of_experts_are_text_and_long_lists_are_counted():
    names = {"L00": tuple(f"<b>{number}</b>" for number in range(16))}
    figure = device_load_heatmap(load_of([[1.0]]), slots=np.arange(16)[None], names=names)
    text = figure.data[0].text[0][0]
    assert "<b>" not in text
    assert text.endswith("and 4 more")


def test_three_scales_stand_beside_independent_tokens():
    index = pd.MultiIndex.from_product([["sequence", "batch", "run"], ["dec00", "L01"]], names=["scale", "layer"])
    table = pd.DataFrame(
        {"max_over_mean": [3.0, 3, 2, 2, 1, 1], "load_alone": [2.0, 2, 1.5, 1.5, np.nan, np.nan]}, index=index
    ).assign(max_over_mean_low=np.nan, max_over_mean_high=np.nan)
    figure = scale_dots(table)
    assert [each.name for each in figure.data] == [
        "one text",
        "one batch",
        "the whole run",
        "one text of independent tokens",
        "one batch of independent tokens",
    ]
    assert list(figure.layout.yaxis.ticktext) == ["dec00", "L01"]
