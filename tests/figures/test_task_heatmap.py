from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from scipy.cluster.hierarchy import leaves_list, linkage

from figures.grid import ColorScale
from figures.task_heatmap import cells_of, task_expert_heatmap
from figures.trees import Tree, whole_tree

SCALE = ColorScale(title="rate", low=0, high=1)


def table_of(values: np.ndarray, *, groups: list[str] | None = None) -> xr.DataArray:
    n_groups, n_layers, n_experts = values.shape
    coords = {
        "task": groups or [f"task {n}" for n in range(n_groups)],
        "layer": [f"L{n:02d}" for n in range(n_layers)],
        "expert": np.arange(n_experts),
    }
    return xr.DataArray(values, dims=("task", "layer", "expert"), coords=coords)


def exists_of(table: xr.DataArray) -> xr.DataArray:
    return xr.ones_like(table.isel(task=0, drop=True), dtype=bool)


def test_cells_equal_the_table_in_the_asked_order():
    table = table_of(np.arange(24, dtype=float).reshape(2, 3, 4))
    cells = cells_of(table, exists=exists_of(table), rows=["task 1", "task 0"], columns=[("L02", 0), ("L00", 3)])
    assert cells.values.tolist() == [[20, 15], [8, 3]]
    assert cells.groups == ("task 1", "task 0")
    # A click reports fractions of nothing, but positions may arrive as floats.
    assert cells.at(1.0, 0.0) == ("task 1", ("L00", 3))


def test_experts_that_do_not_exist_have_no_column():
    table = table_of(np.ones((1, 2, 3)))
    exists = exists_of(table)
    exists[1, 2] = False
    cells = cells_of(table, exists=exists)
    assert cells.experts == (("L00", 0), ("L00", 1), ("L00", 2), ("L01", 0), ("L01", 1))


def test_shared_columns_show_the_expert_that_stands_out_and_a_click_finds_it():
    table = table_of(np.array([[[0.1, -0.9, 0.2, 0.3, 0.05]], [[0.5, 0.1, 0.0, -0.6, 0.7]]]))
    cells = cells_of(table, exists=exists_of(table), most_columns=3)
    # Two experts a column: (0, 1), (2, 3), (4).
    assert cells.n_pooled == 2
    assert cells.values.tolist() == [[-0.9, 0.3, 0.05], [0.5, -0.6, 0.7]]
    assert cells.at(0, 0) == ("task 0", ("L00", 1))
    assert cells.at(0, 1) == ("task 1", ("L00", 0))
    assert cells.at(2, 0) == ("task 0", ("L00", 4))


@pytest.mark.parametrize("most_columns", [2, 100])
def test_what_the_hover_makes_of_a_number_is_that_of_the_whole_table(most_columns):
    table = table_of(np.random.default_rng(0).normal(size=(2, 2, 4)))
    options = {"exists": exists_of(table), "rows": ["task 1", "task 0"], "most_columns": most_columns}
    lazy = cells_of(table, details=((table, np.exp2), table), **options)
    whole = cells_of(table, details=(2.0**table, table), **options)
    np.testing.assert_array_equal(lazy.details, whole.details)


def test_a_significant_expert_wins_its_column_over_a_larger_muted_one():
    table = table_of(np.array([[[5.0, 1.0]]]))
    muted = xr.DataArray(np.array([[[True, False]]]), dims=table.dims, coords=table.coords)
    cells = cells_of(table, exists=exists_of(table), muted=muted, most_columns=1)
    assert cells.values.tolist() == [[1.0]]
    assert cells.muted.tolist() == [[False]]


def test_muted_cells_are_gray_and_no_gap_swallows_a_click():
    table = table_of(np.array([[[1.0, 2.0]], [[3.0, 4.0]]]))
    cells = cells_of(table, exists=exists_of(table), muted=table > 2.5)
    figure = task_expert_heatmap(cells, scale=SCALE, value_text="%{z}", task_types={})
    strong, pale = (trace for trace in figure.data if trace.type == "heatmap")
    assert strong.coloraxis == "coloraxis"
    assert pale.coloraxis is None
    assert not pale.showscale
    assert (pale.zmin, pale.zmax) == (SCALE.low, SCALE.high)
    np.testing.assert_array_equal(strong.z, [[1, 2], [np.nan, np.nan]])
    np.testing.assert_array_equal(pale.z, [[np.nan, np.nan], [3, 4]])
    assert strong.hoverongaps is False
    assert pale.hoverongaps is False


def test_every_layer_has_a_divider_and_a_name():
    table = table_of(np.ones((2, 3, 4)))
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)), scale=SCALE, value_text="%{z}", task_types={}
    )
    assert [shape.x0 for shape in figure.layout.shapes] == [3.5, 7.5]
    assert list(figure.layout.xaxis.ticktext) == ["L00", "L01", "L02"]
    assert list(figure.layout.xaxis.tickvals) == [1.5, 5.5, 9.5]


def test_one_layer_numbers_its_experts():
    table = table_of(np.ones((2, 1, 5)))
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)), scale=SCALE, value_text="%{z}", task_types={}
    )
    assert list(figure.layout.xaxis.ticktext) == ["0", "1", "2", "3", "4"]
    assert figure.layout.xaxis.title.text == "expert of layer L00"


def test_the_strip_carries_the_type_of_each_row_and_the_legend_names_it():
    table = table_of(np.ones((3, 1, 2)), groups=["a", "b", "c"])
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table), rows=["c", "a", "b"]),
        scale=SCALE,
        value_text="%{z}",
        task_types={"a": "code", "b": "knowledge", "c": "code"},
    )
    bars = {trace.name: trace for trace in figure.data if trace.type == "bar"}
    assert list(bars["code"].y) == [0, 1]
    assert list(bars["knowledge"].y) == [2]
    assert bars["code"].marker.color == "#F0E442"


def test_the_tree_joins_the_rows_where_they_stand():
    values = np.array([[0.0], [10.0], [0.1], [10.2]])
    tree = linkage(values, "average")
    names = [f"task {n}" for n in leaves_list(tree)]
    table = table_of(values[:, None, :])
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table), rows=names),
        scale=SCALE,
        value_text="%{z}",
        task_types={},
        row_tree=whole_tree(tree),
    )
    drawn = next(trace for trace in figure.data if trace.type == "scatter" and trace.xaxis == "x3")
    # The two nearest leaves, wherever they are, are joined first: their places are neighbors.
    assert abs(drawn.y[0] - drawn.y[3]) == 1
    assert np.nanmax(drawn.y) <= 3


def test_a_tree_of_columns_stands_above_them_and_skips_who_is_not_drawn():
    # 0 and 1 join at 1, 2 and 3 at 2, both pairs at 5; leaf 3 is not drawn, and the others stand at 0, 1 and 4.
    linkage_ = np.array([[0, 1, 1.0, 2], [2, 3, 2.0, 2], [4, 5, 5.0, 4]])
    table = table_of(np.ones((2, 1, 5)))
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)),
        scale=SCALE,
        value_text="%{z}",
        task_types={},
        column_tree=Tree(linkage=linkage_, places=np.array([0.0, 1.0, 4.0, np.nan])),
        column_types={("L00", 0): "code"},
    )
    drawn = next(trace for trace in figure.data if trace.type == "scatter" and trace.yaxis == "y5")
    # The pair of 0 and 1; then its middle with leaf 2, which stands for itself and its missing partner.
    np.testing.assert_array_equal(drawn.x, [0, 0, 1, 1, np.nan, 0.5, 0.5, 4, 4, np.nan])
    np.testing.assert_array_equal(drawn.y, [0, 1, 1, 0, np.nan, 1, 5, 5, 0, np.nan])
    tree, strip, cells = (figure.layout[name].domain for name in ("yaxis5", "yaxis4", "yaxis"))
    assert cells[1] < strip[0] < strip[1] < tree[0] < tree[1] == 1


def test_hostile_names_are_text():
    table = table_of(np.ones((1, 1, 1)), groups=["<script>alert(1)</script>"])
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)), scale=SCALE, value_text="%{z}", task_types={}
    )
    assert "<script>" not in json.dumps(figure.to_plotly_json(), default=str)


def test_what_no_token_reached_is_hatched():
    table = table_of(np.array([[[1.0, np.nan]]]))
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)), scale=SCALE, value_text="%{z}", task_types={}
    )
    assert "never chosen, or no tokens" in {trace.name for trace in figure.data}


@pytest.mark.parametrize("n_experts", [256, 14848])
def test_a_large_table_stays_within_the_budget_of_the_wire(n_experts: int):
    table = table_of(np.random.default_rng(0).normal(size=(40, 1, n_experts)).astype(np.float32))
    cells = cells_of(table, exists=exists_of(table))
    assert cells.values.shape[1] <= 1200
    figure = task_expert_heatmap(cells, scale=SCALE, value_text="%{z}", task_types={})
    assert len(figure.to_json()) < 5e6


def test_a_large_table_travels_without_a_name_in_each_cell():
    table = table_of(np.ones((40, 2, 600)), groups=[f"task {number}" for number in range(40)])
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)), scale=SCALE, value_text="%{z}", task_types={}
    )
    assert figure.data[0].text is None
    assert figure.data[0].hoverinfo == "none"
    # With a gap on either side a browser would paint every cell by itself.
    assert (figure.data[0].xgap, figure.data[0].ygap) == (0, 0)
    assert len(figure.to_json()) < 600_000


def test_a_strip_tells_what_the_experts_are_for():
    table = table_of(np.ones((2, 1, 4)), groups=["a", "b"])
    experts = [("L00", expert) for expert in range(4)]
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)),
        scale=SCALE,
        value_text="%{z}",
        task_types={"a": "maths", "b": "code"},
        column_types={experts[0]: "maths", experts[1]: "maths", experts[3]: "code"},
    )
    strips = {bar.name: list(bar.x) for bar in figure.data if bar.type == "bar" and bar.yaxis == "y4"}
    assert strips == {"maths": [0, 1], "code": [3]}
    assert figure.layout.yaxis4.domain[0] > figure.layout.yaxis.domain[1]


@pytest.mark.parametrize(("n_rows", "length"), [(6, None), (160, 420)])
def test_the_color_bar_of_a_tall_table_stands_at_its_top(n_rows: int, length: int | None):
    table = table_of(np.ones((n_rows, 1, 3)))
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)), scale=SCALE, value_text="%{z}", task_types={}
    )
    assert figure.layout.coloraxis.colorbar.len == length


def test_no_name_is_asked_again_whether_it_is_cut():
    # Plotly does so for every name at every drawing, which took it most of the time that a table of 160 rows took.
    table = table_of(np.ones((160, 2, 2)))
    figure = task_expert_heatmap(
        cells_of(table, exists=exists_of(table)), scale=SCALE, value_text="%{z}", task_types={}
    )
    assert figure.layout.xaxis.ticklabeloverflow == "allow"
    assert figure.layout.template.layout.yaxis.ticklabeloverflow == "allow"


@pytest.mark.parametrize(("n_rows", "side"), [(6, "bottom"), (160, "top")])
def test_a_tall_table_says_at_its_top_what_the_columns_are_and_how_they_are_pooled(n_rows: int, side: str):
    table = table_of(np.ones((n_rows, 2, 8)))
    cells = cells_of(table, exists=exists_of(table), most_columns=4)
    figure = task_expert_heatmap(cells, scale=SCALE, value_text="%{z}", task_types={})
    assert figure.layout.xaxis.side == side
    assert figure.layout.xaxis.title.text == "expert, by layer: the clearest of 4 neighbors in each cell"
