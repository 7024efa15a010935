from __future__ import annotations

from itertools import combinations

import numpy as np
import plotly.graph_objects as go
import pytest

from figures.theme import (
    INKS,
    OKABE_ITO,
    TOL_MUTED,
    color_of_task_types,
    color_of_tasks,
    diverging_scale,
    finish,
    muted_scale,
    template,
)
from tests.traces import planted_trace, trace_of

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SIMULATED = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", SIMULATED)
@pytest.mark.parametrize("palette", [OKABE_ITO, TOL_MUTED], ids=["okabe_ito", "tol_muted"])
def test_no_two_colors_of_a_palette_look_alike_to_any_eye(palette: tuple[str, ...], vision: str):
    seen = [lab(np.array(SIMULATED[vision]) @ linear(color)) for color in palette]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 14


def test_a_type_has_the_same_color_in_every_run():
    few = color_of_task_types(["knowledge"])
    many = color_of_task_types(["strange", "classification", "knowledge", "odd"])
    assert few["knowledge"] == many["knowledge"]
    # Strangers take what the palette has left, in alphabetical order.
    assert many == color_of_task_types(["odd", "strange", "knowledge", "classification"])
    assert len(set(many.values())) == 4


def test_more_types_than_colors_are_gray_rather_than_repeated():
    colors = color_of_task_types([f"type {n:02d}" for n in range(12)])
    assert len(set(colors.values())) == 9  # eight of the palette, and gray
    assert colors["type 11"] == colors["type 08"] == "#BBBBBB"


def test_filtering_never_recolors_a_task():
    trace = planted_trace(seed=1, n_tasks=6)
    colors = color_of_tasks(trace)
    assert list(colors) == list(trace.tasks)
    assert colors["facts"] == OKABE_ITO[2]


def test_beyond_eight_tasks_take_shades_of_their_type():
    names = [f"t{n}" for n in range(10)]
    trace = trace_of(
        [[0, 1]] * 10,
        prompts=range(10),
        tasks=names,
        task_types={name: "code" if n < 9 else "" for n, name in enumerate(names)},
    )
    colors = color_of_tasks(trace)
    assert len(set(colors.values())) == 10
    assert colors["t9"] == "#BBBBBB"  # no type is "other"


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_zero_of_a_difference_recedes_into_the_page(mode: str):
    middle = dict(diverging_scale(mode))[0.5]
    assert np.linalg.norm(lab(linear(middle)) - lab(linear(INKS[mode].paper))) < 16
    ends = [lab(linear(color)) for at, color in diverging_scale(mode) if at in (0, 1)]
    assert all(np.linalg.norm(end - lab(linear(middle))) > 50 for end in ends)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_is_readable_on_its_page(mode: str):
    def luminance(color: str) -> float:
        return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(color))

    ink = INKS[mode]
    for color, least in ((ink.text, 7.0), (ink.muted, 4.5)):
        one, other = sorted((luminance(color), luminance(ink.paper)))
        assert (other + 0.05) / (one + 0.05) >= least
    assert template(mode).layout.paper_bgcolor == ink.paper


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_finished_figure_has_the_whole_template_to_itself(mode: str):
    one, other = (finish(go.Figure(go.Bar(x=[1], y=[1])), mode=mode, height=200) for _ in range(2))
    assert one.layout.template == template(mode)
    assert one.to_dict()["layout"]["template"] == template(mode).to_plotly_json()
    one.layout.template.layout.font.size = 40
    assert other.layout.template == template(mode)
    with pytest.raises(ValueError, match="height"):
        other.update_layout(height=1)


def test_a_figure_without_a_legend_leaves_no_room_for_one():
    alone = finish(go.Figure(go.Scatter(x=[1], y=[1], name="a")), mode="light", height=200)
    two = finish(
        go.Figure([go.Scatter(x=[1], y=[1], name="a"), go.Scatter(x=[1], y=[1], name="b")]), mode="light", height=200
    )
    assert alone.layout.margin.t == 10
    assert two.layout.margin.t is None


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("diverging", [True, False])
def test_what_chance_would_give_is_gray_and_lies_near_the_page(mode, diverging):
    scale = muted_scale(mode, diverging=diverging)
    channels = np.array([[int(color[at : at + 2], 16) for at in (1, 3, 5)] for _, color in scale])
    # A value that counts has more color than that from an eighth of its scale on.
    assert np.ptp(channels, axis=1).max() <= 12
    neutral = next(color for place, color in diverging_scale(mode) if place == 0.5)
    assert neutral in {color for _, color in scale}
