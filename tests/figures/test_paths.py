from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from figures import paths, structure
from tests.traces import planted_trace

TRACE = planted_trace(seed=0, n_tasks=3, n_prompts_a_task=4, n_layers=3)


def values(figure) -> np.ndarray:
    """(row, column) of the numbers of a heatmap, whether pale or not."""
    shown = np.array([trace.z for trace in figure.data if trace.type == "heatmap"], dtype=float)
    return np.nanmax(np.where(np.isnan(shown), -np.inf, shown), axis=0)


def test_pairs_stand_in_the_order_asked_for_with_frames_both_ways():
    table = analysis.coactivation(TRACE)
    order = [3, 0, 7, 1, 2, 6, 5, 4]
    figure = structure.coactivation_matrix(table, layer="L02", order=order, framed=[(0, 7)])
    assert list(figure.layout.yaxis.ticktext) == [f"E{e}" for e in order]
    lift = table["lift"].sel(layer="L02").to_numpy()
    drawn = values(figure)
    assert drawn[0, 1] == pytest.approx(lift[3, 0], abs=1e-5)
    assert {(shape.x0, shape.y0) for shape in figure.layout.shapes} == {(1.5, 0.5), (0.5, 1.5)}
    assert not structure.coactivation_matrix(table, layer="L02").layout.shapes


def test_followers_stand_in_orders_of_their_own():
    table = analysis.transitions(TRACE)
    rows, columns = [7, 6, 5, 4, 3, 2, 1, 0], [1, 0, 2, 3, 4, 5, 6, 7]
    names = [f"a{e}" for e in range(8)], [f"b{e}" for e in range(8)]
    figure = structure.transition_matrix(table, step="L01→L02", orders=(rows, columns), names=names, framed=[(7, 0)])
    assert figure.layout.yaxis.ticktext[0] == "a7"
    assert figure.layout.xaxis.ticktext[0] == "b1"
    assert values(figure)[0, 1] == pytest.approx(table["lift"].sel(step="L01→L02").to_numpy()[7, 0], abs=1e-5)
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].y0) == (0.5, -0.5)


def test_layers_within_chance_are_pale():
    table = analysis.layer_information(TRACE, n_deals=3)
    figure = structure.layer_information_matrix(table, at_most=0.0)
    assert [trace.coloraxis for trace in figure.data if trace.type == "heatmap"] == ["coloraxis", None]


def test_words_are_drawn_for_the_experts_that_there_are():
    table = analysis.context_independence(TRACE)
    figure = structure.word_matrix(table, layers=["L02", "L00"], framed=[("L00", 3), ("L01", 1)])
    assert list(figure.layout.yaxis.ticktext) == ["L02", "L00"]
    assert len(figure.layout.shapes) == 1
    assert values(figure)[0, 0] == pytest.approx(table["specialization"].sel(layer="L02", expert=0).item(), abs=1e-6)


def test_pairs_are_drawn_as_factors():
    table = pd.DataFrame({"lift": [1.0], "lift_low": [0.0], "lift_high": [2.0], "significant": [True]})
    figure = paths.pair_dots(table, names=["a + b"], value_title="factor")
    assert figure.data[0].x.tolist() == [2.0]
    assert (figure.data[0].error_x.arrayminus[0], figure.data[0].error_x.array[0]) == (1.0, 2.0)
    assert figure.layout.xaxis.type == "log"
    assert "×1.2" not in figure.layout.xaxis.ticktext
    close = paths.pair_dots(table.assign(lift_high=1.0), names=["a + b"], value_title="factor")
    assert "×1.2" in close.layout.xaxis.ticktext


def test_paths_are_named_with_their_words():
    table = analysis.common_paths(TRACE, layers=("L00", "L01"), n_shown=4, n_deals=3)
    figure = paths.common_path_dots(table)
    first, second = table["experts"][0].split()
    assert figure.layout.yaxis.ticktext[0].startswith(f"E{first} → E{second}  “")
    assert figure.data[0].x.tolist() == table["share"].tolist()
    hostile = table.assign(pieces="<b>\u202e")
    assert "<b>" not in paths.common_path_dots(hostile).layout.yaxis.ticktext[0]
    spread = analysis.path_entropy(TRACE, window=2, n_deals=3)
    assert paths.path_dots(spread.reset_index()).data[0].x == pytest.approx(np.exp(spread["entropy_nats"]))


def test_guesses_and_ids_have_their_chance_beside_them():
    guesses = analysis.next_layer_predictability(TRACE, guesses=(1,), n_bootstrap=5).reset_index()
    figure = paths.guess_dots(guesses)
    assert [trace.name for trace in figure.data] == ["guessed from this layer", "always the busiest", "chance"]
    words = analysis.context_independence(TRACE).drop_dims("expert").to_dataframe().reset_index()
    assert paths.context_dots(words).data[0].x.tolist() == words["share"].tolist()
