import numpy as np
import pandas as pd
import pytest

from figures.tokens import token_route


def route(layers=(("L03", 2), ("L04", 1)), *, n_following=2, dropped=None):
    """Layers with their top-k; expert = 10 × layer row + rank, score = 0.5 - 0.1 × rank."""
    rows = []
    for number, (layer, top_k) in enumerate(layers):
        for rank in range(top_k + n_following):
            rows.append(
                {
                    "layer": layer,
                    "rank": rank,
                    "expert": 10 * number + rank,
                    "score": 0.5 - 0.1 * rank,
                    "weight": 1 / top_k if rank < top_k else np.nan,
                    "selected": rank < top_k,
                    "dropped": dropped if rank < top_k else None,
                    "margin": 0.1,
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_selected_and_following_experts_stand_apart(mode):
    selected, following = token_route(route(), mode=mode).data[:2]
    assert selected.text.tolist() == [["<b>E0</b>  0.50", "<b>E1</b>  0.50"], ["<b>E10</b>  1.00", ""]]
    # L04 selects one expert, L03 two: the first runner-up of both stands in the first column of the runners-up.
    assert following.text.tolist() == [["E2", "E3"], ["E11", "E12"]]
    assert min(following.x) > max(selected.x) + 1


def test_one_scale_for_all_cells():
    selected, following = token_route(route(), mode="light").data[:2]
    assert (selected.zmin, selected.zmax) == (following.zmin, following.zmax) == (0.0, 0.5)


def test_a_dropped_assignment_is_struck_through():
    assert "<s>E0</s>" in token_route(route(dropped=True), mode="light").data[0].text.ravel()


def test_the_usual_margins_stand_behind_this_tokens():
    usual = pd.DataFrame({"low": [0.1, 0.2], "high": [0.3, 0.5]}, index=["L03", "L04"])
    figure = token_route(route(), mode="light", usual=usual)
    bars = next(trace for trace in figure.data if trace.type == "bar")
    assert bars.x.tolist() == pytest.approx([0.2, 0.3])
    assert bars.base.tolist() == pytest.approx([0.1, 0.2])


def test_no_runners_up_were_recorded():
    figure = token_route(route(n_following=0), mode="light")
    assert [trace.type for trace in figure.data] == ["heatmap", "scatter"]


def test_a_token_without_any_route_gives_an_empty_picture():
    assert token_route(route().iloc[:0], mode="light").layout.height > 0


def test_a_layers_label_is_shown_not_obeyed():
    hover, expert = token_route(route((("<b>L</b>", 1),)), mode="light").data[0].customdata[0, 0]
    assert "&lt;b&gt;L&lt;/b&gt;" in hover
    assert expert == 0
