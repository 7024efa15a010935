"""One look for every figure: colors that survive color blindness, light and dark.

Identity is never carried by color alone: a figure that colors tasks also names them.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import plotly.graph_objects as go

if TYPE_CHECKING:
    from routing import RoutingTrace

__all__ = [
    "DIVERGING",
    "INKS",
    "Ink",
    "Mode",
    "NUMBER_TICKS",
    "OKABE_ITO",
    "OTHER",
    "PERCENT_TICKS",
    "SEQUENTIAL",
    "TOL_MUTED",
    "color_of_task_types",
    "color_of_tasks",
    "diverging_scale",
    "finish",
    "muted_scale",
    "template",
]

Mode = Literal["light", "dark"]

# Okabe and Ito 2008, black replaced by a brown: black would vanish on a dark page. The brown leaves the smallest
# distance of any pair, under simulated color blindness too, where the other seven had it.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7A5C3E")
# Tol, "Colour Schemes", the muted scheme: where nine are needed.
TOL_MUTED = (
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
)
OTHER = "#BBBBBB"
# How axes and color bars write numbers: as many digits as their steps need, so that no two ticks read alike.
NUMBER_TICKS = ".9~f"
PERCENT_TICKS = ".7~%"
_FONT = '"Source Sans", "Helvetica Neue", Arial, sans-serif'

# Nuñez, Anderton and Renslow 2018: even in lightness, and nearly the same to a color-blind eye.
SEQUENTIAL = "Cividis"
# Blue below, orange above, the page's own neutral between; see `diverging_scale` for the dark page.
DIVERGING: tuple[tuple[float, str], ...] = (
    (0.0, "#08519C"),
    (0.125, "#3182BD"),
    (0.25, "#6BAED6"),
    (0.375, "#BDD7E7"),
    (0.5, "#F4F4F2"),
    (0.625, "#FDD0A2"),
    (0.75, "#FD9B4B"),
    (0.875, "#E6660D"),
    (1.0, "#A63603"),
)
_DIVERGING_DARK: tuple[tuple[float, str], ...] = (
    (0.0, "#8CC6F0"),
    (0.125, "#4E9FD8"),
    (0.25, "#2B73AB"),
    (0.375, "#244A69"),
    (0.5, "#262B30"),
    (0.625, "#6B4423"),
    (0.75, "#B0641A"),
    (0.875, "#E68A2E"),
    (1.0, "#FFBE73"),
)

# A type keeps its color in every run and every view; the order is that of the palette.
_TYPE_COLORS: Mapping[str, str] = MappingProxyType(
    dict(
        zip(
            (
                "extractive",
                "classification",
                "knowledge",
                "generation",
                "translation",
                "maths",
                "code",
                "dialogue",
            ),
            OKABE_ITO,
            strict=True,
        )
    )
    | {"other": OTHER}
)


@dataclass(frozen=True, kw_only=True)
class Ink:
    """The neutral colors of one mode.

    Attributes:
        text: axis titles and labels.
        muted: tick labels, captions, reference lines.
        grid: grid lines, borders and the lines between groups.
        paper: the page; equal to the app's background, so that a saved picture looks as it did.
        absent: cells of experts that a layer does not have, under the hatch.
        accent: what the reader picked.
    """

    text: str
    muted: str
    grid: str
    paper: str
    absent: str
    accent: str


INKS: Mapping[Mode, Ink] = MappingProxyType(
    {
        "light": Ink(
            text="#1C2024",
            muted="#5B6570",
            grid="#E3E6EA",
            paper="#FFFFFF",
            absent="#EDEFF1",
            accent="#D6006C",
        ),
        "dark": Ink(
            text="#E6E9EC",
            muted="#9AA5B0",
            grid="#2E353C",
            paper="#111417",
            absent="#20262B",
            accent="#FF5CA8",
        ),
    }
)


def diverging_scale(mode: Mode) -> tuple[tuple[float, str], ...]:
    """The blue–orange scale whose middle is the mode's own neutral, so that zero recedes on either page."""
    return DIVERGING if mode == "light" else _DIVERGING_DARK


def muted_scale(mode: Mode, *, diverging: bool) -> tuple[tuple[float, str], ...]:
    """Grays for numbers that chance would give, too: none of them is a color that means a value.

    Args:
        mode: light or dark.
        diverging: with a breath of blue below the middle and of orange above.
    """
    if diverging:
        low, middle, high = ("#D3D6D9", "#F4F4F2", "#DBD7D2") if mode == "light" else ("#3E444A", "#262B30", "#49443F")
        return (0.0, low), (0.5, middle), (1.0, high)
    return ((0.0, "#F4F4F2"), (1.0, "#D0D0CE")) if mode == "light" else ((0.0, "#262B30"), (1.0, "#454B51"))


@cache
def template(mode: Mode) -> go.layout.Template:
    """The Plotly template of one mode: fonts, inks, axes, hover, palette. The same object at every call."""
    ink = INKS[mode]
    axis = {
        "gridcolor": ink.grid,
        "linecolor": ink.grid,
        "tickcolor": ink.grid,
        "zerolinecolor": ink.grid,
        "zerolinewidth": 1,
        "automargin": True,
        "ticks": "",
        "ticklabelstandoff": 4,
        "tickfont": {"size": 12, "color": ink.muted},
        "title": {"font": {"size": 13, "color": ink.text}, "standoff": 10},
    }
    color_bar = {
        "thickness": 10,
        "outlinewidth": 0,
        "ticks": "outside",
        "ticklen": 3,
        "tickcolor": ink.grid,
        "tickfont": {"size": 11, "color": ink.muted},
        "title": {"side": "right", "font": {"size": 12, "color": ink.text}},
    }
    return go.layout.Template(
        layout={
            "font": {"family": _FONT, "size": 13},
            "font_color": ink.text,
            "paper_bgcolor": ink.paper,
            "plot_bgcolor": ink.paper,
            "colorway": list(OKABE_ITO),
            "colorscale": {"sequential": SEQUENTIAL, "diverging": diverging_scale(mode)},
            "coloraxis": {"colorbar": color_bar},
            "hoverlabel": {
                "bgcolor": ink.paper,
                "bordercolor": ink.muted,
                "font": {"family": _FONT, "color": ink.text, "size": 12.5},
                "align": "left",
            },
            "legend": {
                "orientation": "h",
                "yanchor": "bottom",
                "y": 1.02,
                "xanchor": "left",
                "x": 0,
                "font": {"size": 12},
            },
            "margin": {"l": 8, "r": 8, "t": 28, "b": 8},
            "xaxis": axis,
            # Plotly else looks again at each name whether the figure cuts it: seconds, where there are 160.
            "yaxis": axis | {"ticklabeloverflow": "allow"},
            "hovermode": "closest",
            "dragmode": "zoom",
        },
        data={"heatmap": [{"colorbar": color_bar}]},
    )


def finish(figure: go.Figure, *, mode: Mode, height: int) -> go.Figure:
    """The same figure with the house's template and a height in pixels: the last line of every builder."""
    named = [trace for trace in figure.data if trace.type != "heatmap" and trace.showlegend is not False]
    _look_like(figure.layout, template(mode))
    figure.update_layout(height=height)
    if len(named) < 2 and not any(trace.showlegend for trace in named):
        figure.update_layout(margin_t=10)
    return figure


def _look_like(layout: go.Layout, known: go.layout.Template) -> None:
    """Give the layout a template that was proven when it was made: to prove it again takes longer than most figures."""
    # As Plotly itself does with its default template.
    layout._validate = False
    try:
        layout.template = known
    finally:
        layout._validate = True


def color_of_task_types(task_types: Iterable[str]) -> dict[str, str]:
    """A color for each task type, the same in every run.

    The project's own types have fixed colors; others take what is left of the palette in alphabetical order,
    and gray once it is used up.

    Returns:
        task type → hex color, in order of first appearance.
    """
    types = list(dict.fromkeys(task_types))
    free = iter([color for color in OKABE_ITO if color not in {_TYPE_COLORS.get(t) for t in types}])
    strangers = {t: next(free, OTHER) for t in sorted(t for t in types if t not in _TYPE_COLORS)}
    return {t: _TYPE_COLORS[t] if t in _TYPE_COLORS else strangers[t] for t in types}


def color_of_tasks(trace: RoutingTrace) -> dict[str, str]:
    """A color for each task of the whole trace, so that filtering never recolors what stays.

    Up to eight tasks take the palette in order; more tasks take shades of their type's color, light to dark.

    Returns:
        task → hex color, in the trace's order.
    """
    tasks = list(trace.tasks)
    if len(tasks) <= len(OKABE_ITO):
        return dict(zip(tasks, OKABE_ITO, strict=False))
    types = {task: kind or "other" for task, kind in trace.task_types.items()}
    colors = color_of_task_types(types.values())
    shaded: dict[str, str] = {}
    for task_type, color in colors.items():
        members = [task for task in tasks if types[task] == task_type]
        shaded |= dict(zip(members, _shades(color, n_shades=len(members)), strict=True))
    return {task: shaded[task] for task in tasks}


def _shades(color: str, *, n_shades: int) -> list[str]:
    """Shades of one hue, from lighter to darker around the color itself."""
    if n_shades == 1:
        return [color]
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    low, high = max(0.24, lightness - 0.18), min(0.82, lightness + 0.22)
    steps = [high - (high - low) * i / (n_shades - 1) for i in range(n_shades)]
    shades = (colorsys.hls_to_rgb(hue, step, saturation) for step in steps)
    return ["#{:02X}{:02X}{:02X}".format(*(round(255 * channel) for channel in shade)) for shade in shades]
