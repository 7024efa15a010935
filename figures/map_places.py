"""Places on a map: where kinds of points lie, and which points a lasso took in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

__all__ = ["inside", "kind_labels"]

# Fewer points than this are no place; distances are in median distances from the middle of the map, and a label is
# wider than it is high.
_FEWEST_LABELED = 5
_WIDEST_LABELED = 0.5
_NEAREST_LABELS = (0.55, 0.16)


def kind_labels(points: pd.DataFrame, kinds: pd.Series) -> pd.DataFrame:
    """Names of kinds for the places where they are: of those that lie together, above them.

    A kind that is spread over the map has no place, and kinds whose labels would collide share one.

    Args:
        points: x and y.
        kinds: of each point.

    Returns:
        (label) · x, y, text · coordinates of the map.
    """
    place = points[["x", "y"]].to_numpy(np.float64)
    reach = np.median(np.hypot(*(place - np.median(place, axis=0)).T)) or 1.0
    labels: list[tuple[np.ndarray, list[str]]] = []
    for kind, rows in points.groupby(kinds.to_numpy()).indices.items():
        middle = np.median(place[rows], axis=0)
        spread = np.median(np.hypot(*(place[rows] - middle).T))
        if len(rows) < _FEWEST_LABELED or spread > _WIDEST_LABELED * reach:
            continue
        above = np.array([middle[0], np.quantile(place[rows, 1], 0.9)])
        near = [names for at, names in labels if (np.abs(above - at) < np.array(_NEAREST_LABELS) * reach).all()]
        if near:
            near[0].append(str(kind))
        else:
            labels.append((above, [str(kind)]))
    rows_of = [{"x": at[0], "y": at[1], "text": _together(names)} for at, names in labels]
    return pd.DataFrame(rows_of, columns=["x", "y", "text"])


def _together(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]}, {names[1]} +{len(names) - 2}"


def inside(points: pd.DataFrame, *, polygons: Sequence[tuple[Sequence[float], Sequence[float]]]) -> np.ndarray:
    """Rows of the points that lie in any of the polygons.

    Args:
        points: x and y.
        polygons: corners' x and y, as a lasso draws them.

    Returns:
        (picked point) · row of `points` · ascending.
    """
    x, y = points["x"].to_numpy(np.float64), points["y"].to_numpy(np.float64)
    hit = np.zeros(len(points), dtype=bool)
    for corners_x, corners_y in polygons:
        edge_x, edge_y = np.asarray(corners_x, np.float64), np.asarray(corners_y, np.float64)
        near = (x >= edge_x.min()) & (x <= edge_x.max()) & (y >= edge_y.min()) & (y <= edge_y.max())
        rows = np.flatnonzero(near)
        odd = np.zeros(len(rows), dtype=bool)
        for x0, y0, x1, y1 in zip(edge_x, edge_y, np.roll(edge_x, -1), np.roll(edge_y, -1), strict=True):
            crosses = (y0 > y[rows]) != (y1 > y[rows])
            if crosses.any():
                odd ^= crosses & (x[rows] < (x1 - x0) * (y[rows] - y0) / (y1 - y0 or np.inf) + x0)
        hit[rows] |= odd
    return np.flatnonzero(hit)
