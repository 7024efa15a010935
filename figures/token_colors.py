"""Colors of the tokens of one passage: by expert, or by a number such as the margin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from plotly.colors import sample_colorscale

from figures.theme import INKS, OKABE_ITO, OTHER, SEQUENTIAL

__all__ = ["Shade", "Shading", "expert_shading", "group_shading", "value_shading"]

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
    """What each token of a passage looks like in each layer, and the legends that explain it.

    Attributes:
        levels: (layer, token) · index into `palette` · −1 where there is nothing to color; one layer only where all
            look alike.
        palette: the looks.
        legends: of each layer of `levels`: kind, title, and items or the ends of a scale.
        absent: what a token without a level is called.
    """

    levels: np.ndarray
    palette: tuple[Shade, ...]
    legends: tuple[dict[str, Any], ...]
    absent: str


def expert_shading(experts: np.ndarray, *, layers: Sequence[str], name: Callable[[str, int], str]) -> Shading:
    """Tokens colored by an expert each: a hue for the seven most frequent of a layer, one neutral for the others.

    No palette tells 256 experts apart. An expert asks for the hue of its number and takes the next free one,
    so it mostly keeps its color from passage to passage; across layers equal hues mean nothing.

    Args:
        experts: (layer, token) · expert, −1 where the layer did not route the token.
        layers: labels of the layers.
        name: from a layer's label and an expert, how it is printed.

    Returns:
        levels of eight looks.
    """
    hues = [_hues(each) for each in experts]
    return _hued(
        experts,
        hues=hues,
        titles=[f"First expert in {layer}" for layer in layers],
        names=[lambda expert, layer=layer: name(layer, expert) for layer in layers],  # type: ignore[misc]
        others=("other expert", "other experts"),
        absent="not routed in this layer",
    )


def group_shading(groups: np.ndarray, *, layers: Sequence[str], names: Sequence[str], title: str) -> Shading:
    """Tokens colored by the group that their first expert belongs to; a group has one hue in all layers.

    Args:
        groups: (layer, token) · group, −1 where there is none.
        layers: labels of the layers.
        names: of the groups, in the order of their numbers; those after the seventh share a neutral.
        title: what the groups are.

    Returns:
        levels of eight looks.
    """
    hues = {group: group for group in range(min(N_HUES, len(names)))}
    return _hued(
        groups,
        hues=[hues] * len(layers),
        titles=[f"{title}, {layer}" for layer in layers],
        names=[names.__getitem__] * len(layers),
        others=("more cluster", "more clusters"),
        absent="in no cluster",
    )


def value_shading(
    values: np.ndarray,
    *,
    titles: Sequence[str],
    digits: int,
    ends: tuple[float, float] | None = None,
    absent: str = "unknown",
) -> Shading:
    """Tokens colored by a number on the sequential scale, one for all layers, so that layers can be compared.

    Args:
        values: (layer, token) · NaN where unknown.
        titles: of each layer.
        digits: that the ends of the scale are written with.
        ends: of the scale; the 2nd and the 98th percentile in the passage, unless given.
        absent: what a token without a number is called.

    Returns:
        levels of the scale's steps; NaN has none.
    """
    known = np.isfinite(values)
    fills = sample_colorscale(SEQUENTIAL, list(np.linspace(0, 1, _N_STEPS)), colortype="tuple")
    palette = tuple(Shade(_hex(rgb), "solid", _ink(rgb)) for rgb in fills)
    low, high = ends or (np.quantile(values[known], [0.02, 0.98]) if known.any() else (0.0, 0.0))
    span = high - low
    scaled = np.where(known, (np.nan_to_num(values) - low) / span if span > 0 else 0.0, 0.0)
    levels = np.clip(scaled * _N_STEPS, 0, _N_STEPS - 1).astype(np.int16)
    levels[~known] = -1
    below = "≤ " if known.any() and values[known].min() < low else ""
    above = "≥ " if known.any() and values[known].max() > high else ""
    scale = {"kind": "scale", "low": f"{below}{low:.{digits}f}", "high": f"{above}{high:.{digits}f}"}
    return Shading(levels, palette, tuple(scale | {"title": title} for title in titles), absent)


def _hues(numbers: np.ndarray) -> dict[int, int]:
    """Expert → hue, of the seven most frequent, the most frequent first."""
    hues: dict[int, int] = {}
    for expert, _ in _counts(numbers)[:N_HUES]:
        wish = expert % N_HUES
        hues[expert] = next(hue for step in range(N_HUES) if (hue := (wish + step) % N_HUES) not in hues.values())
    return hues


def _counts(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Number and how often it occurs, the most frequent first."""
    n_of = np.bincount(numbers[numbers >= 0])
    order = np.argsort(-n_of, kind="stable")
    return [(int(number), int(n_of[number])) for number in order if n_of[number]]


def _hued(
    numbers: np.ndarray,
    *,
    hues: Sequence[Mapping[int, int]],
    titles: Sequence[str],
    names: Sequence[Callable[[int], str]],
    others: tuple[str, str],
    absent: str,
) -> Shading:
    palette = (*(Shade(color, "tint") for color in OKABE_ITO[:N_HUES]), Shade(OTHER, "neutral"))
    levels = np.full(numbers.shape, -1, dtype=np.int16)
    legends = []
    for layer, (hue_of, title, name) in enumerate(zip(hues, titles, names, strict=True)):
        level_of = np.full(max(1, int(numbers[layer].max(initial=-1)) + 1), N_HUES, dtype=np.int16)
        for number, hue in hue_of.items():
            if number < len(level_of):
                level_of[number] = hue
        there = numbers[layer] >= 0
        levels[layer, there] = level_of[numbers[layer, there]]
        counts = _counts(numbers[layer])
        items = [
            {"level": hue_of[number], "label": name(number), "count": n} for number, n in counts if number in hue_of
        ]
        rest = [n for number, n in counts if number not in hue_of]
        if rest:
            items.append({"level": N_HUES, "label": f"{len(rest)} {others[len(rest) > 1]}", "count": sum(rest)})
        legends.append({"kind": "hues", "title": title, "items": items})
    return Shading(levels, palette, tuple(legends), absent)


def _hex(rgb: tuple[float, float, float]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*(round(255 * channel) for channel in rgb))


def _ink(rgb: tuple[float, float, float]) -> str:
    """Black or white, whichever stands out more (WCAG 2 relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INKS["light"].text if luminance > 0.18 else INKS["light"].paper
