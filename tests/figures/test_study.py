"""Figures of load in parts, structure, comparison and placement, from the tables that analysis makes."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

import analysis
from figures import comparisons, curves, structure
from figures.dots import interval_dots
from tests.traces import encoder_decoder_trace, planted_trace

TRACE = planted_trace(seed=0, n_tasks=4, n_prompts_a_task=6, popular={(1, 5): 2.0})


def test_dots_stand_at_their_values_with_ends_and_marks():
    value, low, high = np.array([1.0, 3.0]), np.array([0.5, 2.0]), np.array([1.25, 5.0])
    figure = interval_dots(
        ["a", "b <b>"],
        {"number": (value, low, high)},
        value_title="x",
        marks={"chance": np.array([0.7, np.nan])},
        strong=np.array([True, False]),
        zero_line=True,
    )
    dots, ticks = figure.data
    assert list(dots.x) == [1, 3]
    assert dots.error_x.array.tolist() == [0.25, 2]
    assert dots.error_x.arrayminus.tolist() == [0.5, 1]
    assert dots.marker.color[0] != dots.marker.color[1]
    assert list(ticks.x)[0] == 0.7
    assert figure.layout.yaxis.ticktext[1] == "b &lt;b&gt;"


def test_several_numbers_stand_beside_each_other():
    one, other = interval_dots(
        ["a"], {"x": (np.array([1.0]), None, None), "y": (np.array([2.0]), None, None)}, value_title="v"
    ).data
    assert one.y[0] < 0 < other.y[0]
    assert one.error_x.array is None


def test_a_line_a_layer_and_chance_dotted():
    figure = curves.layer_curves(
        ["0", "1"],
        np.array([[1.0, 2.0], [3.0, np.nan]]),
        layers=["L00", "L01"],
        place_title="position",
        value_title="ratio",
        reference=np.array([0.5, 0.6]),
    )
    assert [trace.name for trace in figure.data] == ["L00", "L01", "chance"]
    assert figure.data[0].line.color != figure.data[1].line.color
    assert figure.data[2].line.dash == "dot"


def test_curves_of_load_show_what_the_tables_say():
    positions = analysis.load_by_position(TRACE, n_bootstrap=0)
    figure = curves.position_curves(positions, value_title="max ÷ mean")
    assert list(figure.data[1].y) == positions["max_over_mean"].sel(layer="L01").values.tolist()
    drops = analysis.capacity_drops(TRACE, factors=(1.0, 2.0), n_bootstrap=0)
    figure = curves.capacity_curve(drops)
    assert list(figure.data[1].y) == drops["drop_rate"].sel(layer="L01").values.tolist()
    assert list(figure.layout.xaxis.ticktext) == ["1", "2"]
    banded = curves.layer_curves(
        ["a", "b", "c"],
        np.ones((2, 3)),
        layers=["L00", "L01"],
        place_title="place",
        value_title="value",
        band=("L01", np.array([0.5, np.nan, 0.7]), np.array([1.5, np.nan, 1.7])),
    )
    assert list(banded.data[0].y) == [1.5, 1.7, 0.7, 0.5]
    assert banded.data[0].fill == "toself"
    assert banded.data[0].line.color == banded.data[2].line.color
    run = analysis.load_convergence(TRACE, n_permutations=9).loc["L01"]
    figure = curves.convergence_curve(run)
    assert list(next(trace for trace in figure.data if trace.name == "as recorded").y) == run["distance"].tolist()
    passes = analysis.pass_load(TRACE, batch_size=4).xs("L01", level="layer")
    figure = curves.pass_dots(passes)
    assert sum(len(trace.x) for trace in figure.data if trace.mode == "markers") == len(passes)


def test_ranks_have_their_chance_beside_them():
    table = analysis.saturation_by_rank(TRACE, TRACE, n_bootstrap=5)
    figure = curves.rank_curves(table)
    assert [trace.name for trace in figure.data[:2]] == ["rank 0", "rank 0, another text"]
    assert list(figure.data[0].y) == [1.0] * 4
    assert list(figure.data[1].y) == table.xs(0, level="rank")["chance_kept"].tolist()


def test_contributions_come_in_order():
    table = analysis.overload_tasks(TRACE, n_bootstrap=20).loc["L01"]
    figure = comparisons.contribution_dots(table)
    assert list(figure.data[0].x) == sorted(table["contribution"], reverse=True)
    assert figure.layout.yaxis.ticktext[0] == table["contribution"].idxmax()
    tokens = analysis.overload_tokens(TRACE, layer="L01", n_shown=5)
    assert comparisons.contribution_dots(tokens).layout.yaxis.ticktext[0] == repr(tokens["piece"].iloc[0])


def test_differences_are_filled_where_they_are_significant():
    mask = (TRACE.prompts["task"] == "spans").to_numpy()
    table = analysis.differential(TRACE, mask)
    dots = comparisons.difference_dots(table, one="spans", other="the rest", n_shown=8).data[0]
    assert list(dots.x) == table["difference"].head(8).tolist()
    filled = [color != dots.marker.color[-1] for color in dots.marker.color]
    assert table["significant"].head(8).tolist() == filled or table["significant"].head(8).all()


def test_churn_repetition_and_passes_have_a_row_a_layer():
    for figure in (
        comparisons.churn_dots(analysis.churn(TRACE, TRACE, n_bootstrap=5)),
        comparisons.repetition_dots(analysis.repetition(TRACE, n_bootstrap=5)),
        comparisons.pass_ranges(analysis.worst_passes(TRACE, n_permutations=3).loc["prompt"], mode="dark"),
    ):
        assert list(figure.layout.yaxis.ticktext) == list(TRACE.layers)
        assert all(len(trace.x) == 4 for trace in figure.data)


def test_placements_before_and_after():
    study = analysis.placement_what_if(TRACE, n_devices=4, n_nodes=2, n_random=2)
    figure = comparisons.placement_dots(study.table, measure="slowdown_bound", value_title="slowdown")
    names = list(figure.layout.yaxis.ticktext)
    assert list(figure.data[0].x) == [study.table.loc[(name, "judged"), "slowdown_bound"] for name in names]


def test_tokens_that_changed_are_marked():
    prompt = TRACE.prompts["prompt"][0]
    table = analysis.token_churn(TRACE, TRACE, prompt=prompt).copy(deep=True)
    table["churn"][0, 0] = 1.0
    table["experts_before"][0, 0] = [3, 7]
    figure = comparisons.token_churn_heatmap(table)
    cells = figure.data[0]
    assert np.nanmax(cells.z) == 1
    assert cells.customdata[0][0][0] == "E3 E7"
    assert cells.customdata[1][0][0] == cells.customdata[1][0][1]


def test_matrices_pale_what_is_not_significant():
    table = analysis.coactivation(TRACE)
    figure = structure.coactivation_matrix(table, layer="L03")
    heatmaps = [trace for trace in figure.data if trace.type == "heatmap"]
    shown = sum(np.isfinite(trace.z).sum() for trace in heatmaps)
    assert shown == np.isfinite(table["lift"].sel(layer="L03").values).sum()
    steps = analysis.transitions(TRACE)
    figure = structure.transition_matrix(steps, step="L01→L02")
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == ("expert of L01", "expert of L02")
    told = analysis.layer_information(encoder_decoder_trace(), n_deals=3)
    assert isinstance(structure.layer_information_matrix(told), go.Figure)


def test_empty_tables_draw_empty_figures():
    nobody = analysis.differential(TRACE, [TRACE.prompts["prompt"][0]], n_permutations=5).head(0)
    assert len(comparisons.difference_dots(nobody).data[0].x) == 0
