from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.grid import log2_scale
from figures.margins import spread_by_layer
from figures.square import matrix_heatmap, similarity_scale


def cells(values, **options):
    scale = similarity_scale([values])
    return matrix_heatmap(
        values, rows=["a", "b"], columns=["x", "y", "z"], scale=scale, value_text="%{z:.2f}", **options
    )


def test_rows_go_down_columns_across_and_what_is_missing_is_hatched():
    figure = cells(np.array([[0.1, 0.2, np.nan], [0.3, 0.4, 0.5]]), row_title="task")
    heat = figure.data[0]
    np.testing.assert_allclose(heat.z, [[0.1, 0.2, np.nan], [0.3, 0.4, 0.5]], rtol=1e-6)
    assert heat.text[1][2] == "b · z"
    assert figure.layout.yaxis.range == (1.5, -0.5)
    assert figure.layout.yaxis.title.text == "task"
    assert figure.data[1].name == "no number"


def test_muted_cells_recede_and_a_missing_one_is_not_muted():
    values = np.array([[0.1, 0.2, np.nan], [0.3, 0.4, 0.5]])
    figure = cells(values, muted=np.array([[True, False, True], [False] * 3]))
    bright, pale = (each.z for each in figure.data[:2])
    assert np.isnan(bright[0][0])
    assert pale[0][0] == pytest.approx(0.1)
    assert np.isnan(pale[0][2])


def test_types_of_rows_become_a_strip_and_names_are_texts():
    figure = matrix_heatmap(
        np.zeros((2, 1)),
        rows=["<b>a</b>", "b"],
        columns=["%{x}"],
        scale=log2_scale([np.ones(1)], title="t", most=2.0),
        value_text="%{z}",
        row_types={"<b>a</b>": "maths"},
        selected_rows=[1],
    )
    assert {each.name for each in figure.data if each.type == "bar"} == {"maths", "other"}
    assert "<b>" not in figure.layout.yaxis.ticktext[0]
    assert len(figure.layout.shapes) == 1


@pytest.mark.parametrize(
    ("values", "low", "high", "diverging"),
    [([-0.2, 0.5], -0.5, 0.5, True), ([0.8, 0.9], 0.8, 0.9, False), ([], 0.0, 1.0, False)],
)
def test_a_similarity_scale_uses_what_there_is(values, low, high, diverging):
    scale = similarity_scale([np.array(values)])
    assert (scale.low, scale.high, scale.diverging) == (low, high, diverging)


def test_a_spread_has_its_quantiles_layer_by_layer():
    columns = ["q05", "q25", "q50", "q75", "q95"]
    table = pd.DataFrame([[0, 1, 2, 3, 4], [np.nan] * 5], index=["L00", "L01"], columns=columns, dtype=float)
    figure = spread_by_layer(table, value_title="margin (selection score)", reference=0.0)
    wide, middle, median = figure.data
    assert list(wide.x[:2]) == [0, 4]
    assert list(middle.x[:2]) == [1, 3]
    assert median.x[0] == 2
    assert figure.layout.xaxis.title.text == "margin (selection score)"
