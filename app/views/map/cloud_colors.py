"""What the colors of a million tokens say: a byte each, whatever column they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from plotly.colors import sample_colorscale

from app.components.point_map import Entry, Kinds
from figures.theme import OKABE_ITO, OTHER, SEQUENTIAL, Mode, color_of_task_types, color_of_tasks
from routing import RoutingTrace, Selection, expert_name
from routing.chunks import PHASES

__all__ = ["CLOUD_COLORS", "kinds_of", "prompt_columns", "selected_points", "with_rest"]

CLOUD_COLORS = ("task", "type", "expert", "phase", "nll", "position")

_MOST_KINDS = 250
_N_SHADES = 240
_N_STEPS = 6
# Beyond this share of the tokens a scale of few outliers would leave all others one color.
_CUT = 0.98
_OF_PROMPT = "prompt."
_KNOWN = ("prompt", "task", "task_type", "text", "target", "prediction")


def prompt_columns(trace: RoutingTrace) -> dict[str, str]:
    """Columns of the prompts that points can be colored by.

    Returns:
        name in the URL → column, of those that hold numbers or few kinds.
    """
    found = {}
    for column in trace.prompts.columns:
        values = trace.prompts[column]
        told = values.notna().any() and column not in _KNOWN
        if told and (pd.api.types.is_numeric_dtype(values) or values.astype(str).nunique() <= _MOST_KINDS):
            found[f"{_OF_PROMPT}{column}"] = str(column)
    return found


def kinds_of(trace: RoutingTrace, points: pd.DataFrame, *, color: str, layer: str, mode: Mode) -> Kinds:
    """The colors of tokens.

    Args:
        trace: the trace.
        points: of `token_places`.
        color: one of `CLOUD_COLORS`, or a name that `prompt_columns` gives.
        layer: whose first expert is told, where `color` is "expert".
        mode: light or dark.
    """
    prompt = points["prompt"].to_numpy()
    if color in ("nll", "position"):
        title = {"nll": "NLL (nats)", "position": "Position in the text"}[color]
        return _numbers(points[color].to_numpy(float), title=title, mode=mode)
    if color == "phase":
        return _names(
            points["phase"].to_numpy().astype(int),
            PHASES,
            dict(zip(PHASES, OKABE_ITO[4:6], strict=True)),
            title="Phase",
        )
    if color == "expert":
        return _experts(trace, points, layer=layer)
    task_P = trace.task_of_prompt
    if color == "task":
        return _names(task_P[prompt], trace.tasks, color_of_tasks(trace), title="Task")
    if color == "type":
        types = list(dict.fromkeys(trace.task_types.values()))
        type_of = np.array([types.index(trace.task_types[task]) for task in trace.tasks])
        return _names(type_of[task_P[prompt]], types, color_of_task_types(types), title="Task type")
    column = prompt_columns(trace)[color]
    values = trace.prompts[column]
    title = column.capitalize()
    if pd.api.types.is_numeric_dtype(values) and values.nunique() > _N_STEPS:
        return _numbers(values.to_numpy(float)[prompt], title=title, mode=mode)
    codes, names = pd.factorize(values.astype(str).where(values.notna()), sort=True)
    return _names(codes[prompt], list(names), {}, title=title)


def selected_points(trace: RoutingTrace, points: pd.DataFrame, selection: Selection) -> np.ndarray | None:
    """Which tokens are of the selected tasks and prompts, and chose one of the selected experts.

    Returns:
        (token) · whether it is all that · True or False; None where nothing of the kind is selected.
    """
    if not (selection.tasks or selection.prompts or selection.experts):
        return None
    prompts = trace.prompts
    named = prompts["task"].isin(selection.tasks or trace.tasks) & prompts["prompt"].isin(
        selection.prompts or prompts["prompt"]
    )
    kept: np.ndarray = named.to_numpy()[points["prompt"].to_numpy()]
    if selection.experts and trace.experts is not None:
        chose = np.zeros(len(points), dtype=bool)
        rows = points["token"].to_numpy()
        for label, expert in selection.experts:
            layer = trace.layers.index(label)
            chosen = trace.experts[rows, layer, : trace.layer_facts[layer].top_k].values
            chose |= (chosen == expert).any(axis=1)
        kept = kept & chose
    return kept


def with_rest(kinds: Kinds, kept: np.ndarray | None) -> Kinds:
    """The same colors, with what is not selected gray and a line of the legend of its own."""
    if kept is None or bool(kept.all()):
        return kinds
    rest = len(kinds.colors)
    return replace(
        kinds,
        codes=np.where(kept, kinds.codes, rest).astype(np.uint8),
        colors=(*kinds.colors, OTHER),
        entries=(*kinds.entries, Entry("not selected", rest, rest + 1)),
    )


def _experts(trace: RoutingTrace, points: pd.DataFrame, *, layer: str) -> Kinds:
    number = trace.layers.index(layer)
    assert trace.experts is not None
    first = trace.experts[points["token"].to_numpy(), number, 0].values.astype(int)
    n_experts = trace.layer_facts[number].n_experts
    names = [expert_name(layer, expert, names=trace.expert_names) for expert in range(n_experts)]
    return _names(np.where(first < n_experts, first, -1), names, {}, title=f"First expert of {layer}")


def _names(codes: np.ndarray, names: Sequence[str], colors: Mapping[str, str], *, title: str) -> Kinds:
    """Kinds by their number, those without one last; without colors of their own the seven most frequent get one."""
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    if len(names) > _MOST_KINDS or not colors:
        kept = np.argsort(-counts, kind="stable")[: len(OKABE_ITO) - 1]
        colors = {names[place]: OKABE_ITO[number] for number, place in enumerate(kept)}
    shown = [place for place, name in enumerate(names) if name in colors and counts[place]]
    number_of = np.full(len(names) + 1, len(shown))
    number_of[shown] = np.arange(len(shown))
    drawn = number_of[codes]
    fills = [colors[names[place]] for place in shown]
    entries = [Entry(names[place], number, number + 1) for number, place in enumerate(shown)]
    if (drawn == len(shown)).any():
        fills.append(OTHER)
        entries.append(Entry("others", len(shown), len(shown) + 1))
    return Kinds(title=title, codes=drawn.astype(np.uint8), colors=tuple(fills), entries=tuple(entries))


def _numbers(values: np.ndarray, *, title: str, mode: Mode) -> Kinds:
    """A scale in steps that can be hidden one by one; the largest two in a hundred share its end."""
    known = np.isfinite(values)
    low = float(values[known].min()) if known.any() else 0.0
    high = float(np.quantile(values[known], _CUT)) if known.any() else 1.0
    width = (high - low) or 1.0
    shade = np.clip(np.nan_to_num((values - low) / width) * _N_SHADES, 0, _N_SHADES - 1).astype(int)
    codes = np.where(known, shade, _N_SHADES).astype(np.uint8)
    # Without the end of the scale that a small mark would lose against the page.
    ends = (0.0, 0.9) if mode == "light" else (0.28, 1.0)
    places = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, _N_SHADES)
    colors = [_hex(color) for color in sample_colorscale(SEQUENTIAL, list(places))]
    edges = np.linspace(0, _N_SHADES, _N_STEPS + 1).astype(int)
    values_at = low + width * edges / _N_SHADES
    names = [f"{one:.3g} – {other:.3g}" for one, other in zip(values_at, values_at[1:], strict=False)]
    names[-1] = f"≥ {values_at[-2]:.3g}"
    entries = [Entry(name, int(a), int(b)) for name, a, b in zip(names, edges, edges[1:], strict=False)]
    if not known.all():
        entries.append(Entry("unknown", _N_SHADES, _N_SHADES + 1))
    return Kinds(title=title, codes=codes, colors=(*colors, OTHER), entries=tuple(entries))


def _hex(color: str) -> str:
    red, green, blue = (round(float(part)) for part in color[4:-1].split(","))
    return f"#{red:02x}{green:02x}{blue:02x}"
