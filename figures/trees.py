"""The tree that ordered the rows or the columns of a heatmap, drawn beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from figures.theme import INKS, Mode

__all__ = ["Tree", "add_column_tree", "add_row_tree", "whole_tree"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """Who is joined with whom, and where they stand.

    Attributes:
        linkage: joins of leaves, as scipy writes them.
        places: (leaf) · place along the axis, in drawn cells; NaN where the leaf is not drawn.
    """

    linkage: np.ndarray
    places: np.ndarray


def whole_tree(linkage: np.ndarray) -> Tree:
    """The tree of a table all of whose rows are drawn, in the order of its leaves."""
    # Slow to import, and few figures have trees.
    from scipy.cluster.hierarchy import leaves_list

    places = np.empty(len(linkage) + 1)
    places[leaves_list(linkage)] = np.arange(len(places))
    return Tree(linkage=linkage, places=places)


def add_row_tree(figure: go.Figure, tree: Tree, *, left: float, mode: Mode) -> None:
    """Draw the tree of the rows at the right of them, on the axis x3.

    Args:
        figure: gets the lines; the axis x must end before `left`.
        tree: of the rows.
        left: share of the figure's width at which it begins.
        mode: light or dark.
    """
    heights, places = _brackets(tree)
    _add(figure, x=heights, y=places, axes=("x3", "y"), mode=mode)
    figure.update_layout(
        xaxis3={"domain": [left, 1.0], "visible": False, "fixedrange": True, "anchor": "y", "rangemode": "tozero"}
    )


def add_column_tree(figure: go.Figure, tree: Tree, *, bottom: float, mode: Mode) -> None:
    """Draw the tree of the columns above them, on the axis y5.

    Args:
        figure: gets the lines; what stands above the cells must end before `bottom`.
        tree: of the columns.
        bottom: share of the figure's height at which it begins.
        mode: light or dark.
    """
    heights, places = _brackets(tree)
    _add(figure, x=places, y=heights, axes=("x", "y5"), mode=mode)
    figure.update_layout(
        yaxis5={"domain": [bottom, 1.0], "visible": False, "fixedrange": True, "anchor": "x", "rangemode": "tozero"}
    )


def _add(figure: go.Figure, *, x: np.ndarray, y: np.ndarray, axes: tuple[str, str], mode: Mode) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": INKS[mode].muted, "width": 1},
        hoverinfo="skip",
        showlegend=False,
        xaxis=axes[0],
        yaxis=axes[1],
    )


def _brackets(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Heights and places of the lines: four corners for each join of what is drawn, then a gap."""
    n_leaves = len(tree.places)
    place = np.concatenate([tree.places, np.full(len(tree.linkage), np.nan)])
    height = np.zeros(len(place))
    heights: list[float] = []
    places: list[float] = []
    for number, (one, other, level, _) in enumerate(tree.linkage, start=n_leaves):
        a, b = int(one), int(other)
        if np.isnan(place[a]) or np.isnan(place[b]):
            # Of two branches the other is not drawn: what is drawn goes on as it was.
            kept = b if np.isnan(place[a]) else a
            place[number], height[number] = place[kept], height[kept]
            continue
        heights += [height[a], level, level, height[b], np.nan]
        places += [place[a], place[a], place[b], place[b], np.nan]
        place[number], height[number] = (place[a] + place[b]) / 2, level
    return np.array(heights, dtype=np.float32), np.array(places, dtype=np.float32)
