"""Generated adapters on a map: what they are called, what their color says, and what picking them selects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from app.sentences import percent
from figures.scatter import PointColor
from figures.theme import OKABE_ITO, color_of_task_types, color_of_tasks
from routing import RoutingTrace, Selection

__all__ = ["COLORS", "adapter_rows", "color_of_adapters", "described_adapters", "selection_of_adapters"]

COLORS = ("task", "type", "site", "uses")
_SHAPES = ("circle", "diamond", "square", "triangle-up")


def described_adapters(trace: RoutingTrace, points: pd.DataFrame) -> pd.DataFrame:
    """The points with a name and a text for their tooltips.

    Returns:
        (point) · as `routing_map` gives them, then name, text.
    """
    made_from = _made_from(trace)
    names, texts = [], []
    columns = ("site", "key", "n_uses", "task", "task_share")
    for site, key, n_uses, task, share in zip(*(points[name] for name in columns), strict=True):
        selected = made_from.get(site) == "selected_set"
        names.append(f"{site} · {' '.join(f'E{each}' for each in key.split())}" if selected else f"{site} · {key}")
        used = f"used by {n_uses:,} {trace.unit}s"
        most = f", most of {task} ({percent(share)})" if isinstance(task, str) else ""
        texts.append(f"made from {'the selected experts' if selected else 'this task or text'}\n{used}{most}")
    return points.assign(name=names, text=texts)


def color_of_adapters(trace: RoutingTrace, points: pd.DataFrame, *, color: str) -> tuple[PointColor, str]:
    """What the colors of adapters say, and that in a sentence."""
    if color == "uses":
        values = np.log10(points["n_uses"].astype(float).clip(lower=1)).reset_index(drop=True)
        top = float(values.max()) if len(values) else 0.0
        ticks = {float(power): f"{10**power:,}" for power in range(int(top) + 1)}
        return PointColor(title=f"Uses ({trace.unit}s)", values=values, ticks=ticks), ""
    if color == "site":
        kinds = points["site"].astype(str).reset_index(drop=True)
        sites = list(dict.fromkeys(kinds))
        colors = {name: OKABE_ITO[i % len(OKABE_ITO)] for i, name in enumerate(sites)}
        # More sites than hues: the second round of hues has another shape.
        symbols = {name: _SHAPES[i // len(OKABE_ITO) % len(_SHAPES)] for i, name in enumerate(sites)}
        return PointColor(title="Site", values=kinds, colors=colors, symbols=symbols), ""
    column = {"task": "task", "type": "task_type"}[color]
    palette = color_of_tasks(trace) if color == "task" else color_of_task_types(trace.task_types.values())
    kinds = points[column].astype(object).where(points[column].notna(), None).reset_index(drop=True)
    word = {"task": "task", "type": "task type"}[color]
    sentence = f"Colored by the {word} that uses each most; rows of other tasks may use it as well."
    return PointColor(title=f"Used most by ({word})", values=kinds, colors=palette, missing="unused"), sentence


def adapter_rows(trace: RoutingTrace, points: pd.DataFrame, selection: Selection) -> np.ndarray:
    """Which points the selection names: adapters made from its experts, tasks or prompts, or applied at its layers.

    Returns:
        (point) · whether it is named · True or False.
    """
    hit = np.zeros(len(points), dtype=bool)
    made_from = _made_from(trace)
    experts = set(selection.experts)
    for row, (site, key) in enumerate(zip(points["site"], points["key"], strict=True)):
        if made_from.get(site) == "selected_set":
            named = bool(experts) and {(site, int(each)) for each in key.split()} <= experts
        else:
            named = key in selection.tasks or key in selection.prompts
        hit[row] = named or site in selection.layers
    return hit


def selection_of_adapters(trace: RoutingTrace, points: pd.DataFrame, selection: Selection) -> Selection:
    """What picking these adapters selects: the experts, tasks or prompts that they were made from."""
    made_from = _made_from(trace)
    experts: dict[tuple[str, int], None] = {}
    tasks: dict[str, None] = {}
    prompts: dict[str, None] = {}
    for site, key in zip(points["site"], points["key"], strict=True):
        if made_from.get(site) == "selected_set":
            experts |= {(site, int(each)): None for each in key.split()}
        elif made_from.get(site) == "task":
            tasks[key] = None
        else:
            prompts[key] = None
    return replace(
        selection,
        experts=tuple(experts) or selection.experts,
        tasks=tuple(name for name in tasks if name in trace.tasks) or selection.tasks,
        prompts=tuple(prompts) or selection.prompts,
    )


def _made_from(trace: RoutingTrace) -> dict[str, str]:
    return {} if trace.adapters is None else {site.label: site.made_from for site in trace.adapters.sites}
