"""Colors of the tokens of one passage: by expert, or by a number such as the margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from plotly.colors import sample_colorscale

from figures.theme import INKS, OKABE_ITO, OTHER, SEQUENTIAL, Mode

__all__ = ["Shade", "Shading", "expert_shading", "value_shading"]

N_HUES = 7
_N_STEPS = 14


@dataclass(frozen=True)
class Shade:
    """One look of a token.

    Attributes:
        fill: hex color.
        look: "tint" (a hue under the page's own ink), "neutral" (the same, paler) or "solid".
        ink: text color on a solid fill.
    """

    fill: str
    look: str
    ink: str | None = None


@dataclass(frozen=True, eq=False)
class Shading:
    """What each token of a passage looks like, and the legend that explains it.

    Attributes:
        levels: (token) · index into `palette` · −1 where there is nothing to color.
        palette: the looks.
        legend: title and items, or the ends of a scale.
        absent: what a token without a level is called; None where there is none.
    """

    levels: np.ndarray
    palette: tuple[Shade, ...]
    legend: dict[str, Any]
    absent: str | None


def expert_shading(experts: Sequence[int | None], *, layer: str, names: dict[int, str]) -> Shading:
    """Tokens colored by an expert each: a hue for the seven most frequent, one neutral for the others.

    No palette tells 256 experts apart. An expert asks for the hue of its number and takes the next free one,
    so it mostly keeps its color from passage to passage; across layers equal hues mean nothing.

    Args:
        experts: (token) expert, None where this layer did not route the token.
        layer: label of the layer, for the legend.
        names: expert → how it is printed.

    Returns:
        levels of at most eight looks.
    """
    present = pd.Series([e for e in experts if e is not None], dtype="int64")
    counts = present.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    hues: dict[int, int] = {}
    for expert in counts.index[:N_HUES]:
        wish = int(expert) % N_HUES
        hues[int(expert)] = next(hue for step in range(N_HUES) if (hue := (wish + step) % N_HUES) not in hues.values())
    palette = [Shade(OKABE_ITO[hue], "tint") for hue in hues.values()]
    level_of = {expert: level for level, expert in enumerate(hues)}
    items = [
        {"level": level, "label": names[expert], "count": int(counts[expert])} for expert, level in level_of.items()
    ]
    if len(counts) > N_HUES:
        rest = counts.iloc[N_HUES:]
        items.append({"level": len(palette), "label": f"{len(rest)} other experts", "count": int(rest.sum())})
        palette.append(Shade(OTHER, "neutral"))
    levels = np.array([-1 if e is None else level_of.get(e, len(palette) - 1) for e in experts], dtype=np.int16)
    legend = {"kind": "experts", "title": f"First expert in {layer}", "items": items}
    return Shading(levels, tuple(palette), legend, "not routed in this layer" if (levels < 0).any() else None)


def value_shading(values: Sequence[float], *, title: str, digits: int, mode: Mode) -> Shading:
    """Tokens colored by a number on the sequential scale, from its 2nd to its 98th percentile in the passage.

    Returns:
        levels of the scale's steps; NaN has none.
    """
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    fills = sample_colorscale(SEQUENTIAL, list(np.linspace(0, 1, _N_STEPS)), colortype="tuple")
    palette = tuple(Shade(_hex(rgb), "solid", _ink(rgb)) for rgb in fills)
    low, high = np.quantile(numbers[known], [0.02, 0.98]) if known.any() else (0.0, 0.0)
    span = high - low
    scaled = np.where(known, (numbers - low) / span if span > 0 else 0.0, 0.0)
    levels = np.clip(scaled * _N_STEPS, 0, _N_STEPS - 1).astype(np.int16)
    levels[~known] = -1
    below = "≤ " if known.any() and numbers[known].min() < low else ""
    above = "≥ " if known.any() and numbers[known].max() > high else ""
    legend = {
        "kind": "scale",
        "title": title,
        "low": f"{below}{low:.{digits}f}",
        "high": f"{above}{high:.{digits}f}",
    }
    return Shading(levels, palette, legend, None if known.all() else "unknown")


def _hex(rgb: tuple[float, float, float]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*(round(255 * channel) for channel in rgb))


def _ink(rgb: tuple[float, float, float]) -> str:
    """Black or white, whichever stands out more (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INKS["light"].text if luminance > 0.18 else INKS["light"].paper
