from __future__ import annotations

import numpy as np

from figures.blocks import block_heatmap
from figures.square import similarity_scale


def test_each_block_is_named_once_and_ruled_off():
    values = np.arange(25.0).reshape(5, 5)
    figure = block_heatmap(
        values,
        names=list("abcde"),
        blocks=["L00", "L00", "L01", "L01", "L01"],
        scale=similarity_scale([values]),
        value_text="%{z:.2f}",
    )
    assert figure.layout.xaxis.ticktext == figure.layout.yaxis.ticktext == ("L00", "L01")
    # Items 0 and 1, then 2 to 4.
    np.testing.assert_allclose(figure.layout.xaxis.tickvals, [0.5, 3.0])
    assert sorted((each.x0, each.x1) for each in figure.layout.shapes) == [(-0.5, 4.5), (1.5, 1.5)]
    assert figure.data[0].text[1][4] == "b · e"
