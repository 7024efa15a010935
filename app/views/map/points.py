"""What a point of a map is called, what its color says, and which points the selection names."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.clustering import Clustering
from app import cache
from app.prompts import outcome_of, prompt_lead
from app.views.map import adapters as map_adapters
from app.views.map import sentences as map_sentences
from app.views.map import tokens as map_tokens
from app.views.map.cloud_colors import prompt_columns
from app.views.map.kept import Mapped, strongest_groups
from figures.scatter import PointColor
from figures.theme import OKABE_ITO, OTHER, color_of_task_types, color_of_tasks
from routing import RoutingTrace, Selection, expert_name

__all__ = ["cluster_color", "color_of", "described", "picked_rows"]

_OVER = {"task": "task", "type": "task_type"}
_SHAPES = ("circle", "diamond", "square", "triangle-up")
_WORDS = {"task": "task", "type": "task type"}


def described(
    trace: RoutingTrace, points: pd.DataFrame, *, of: Mapped, most_items: int = 4000, seed: int = 0
) -> pd.DataFrame:
    """The points with a name and a text for their tooltips, and what the table of a selection shows.

    Args:
        trace: the trace.
        points: of the map.
        of: what they are.
        most_items: most points of the map.
        seed: of the draw of tokens.

    Returns:
        (point) · x, y, name, text; layer, expert, serves, lift of experts; prompt, task, task_type, score, outcome,
        lead of prompts; prompt, position, phase, lead of tokens; site, key, n_uses of adapters · lift in log2 ratio.
    """
    if of == "token":
        return map_tokens.described_tokens(trace, points, most_items=most_items, seed=seed)
    if of == "adapter":
        return map_adapters.described_adapters(trace, points)
    names = []
    if of == "expert":
        called = trace.expert_names
        names = [
            expert_name(str(layer), int(e), names=called)
            for layer, e in zip(points["layer"], points["expert"], strict=True)
        ]
    if of == "expert" and trace.level == "counts":
        return points.assign(name=names, text="", serves=None, lift=np.nan)
    if of == "expert":
        strongest = cache.answer(trace, strongest_groups, over="task")
        keys = pd.MultiIndex.from_arrays([points["layer"], points["expert"]])
        best = strongest.reindex(keys).reset_index(drop=True)
        serves = [
            "serves no task beyond chance"
            if group is None or pd.isna(group)
            else f"serves {group} most (log₂ lift {lift:+.1f})"
            for group, lift in zip(best["group"], best["lift"], strict=True)
        ]
        return points.assign(name=names, text=serves, serves=best["group"].to_numpy(), lift=best["lift"].to_numpy())
    prompts = trace.prompts.set_index("prompt").loc[points["item"]]
    outcomes = [outcome_of(score) for score in points["score"]]
    leads = [prompt_lead(str(text), n_characters=160) for text in prompts["text"]]
    texts = [
        f"{task} ({kind}) · {outcome}\n{lead}"
        for task, kind, outcome, lead in zip(points["task"], points["task_type"], outcomes, leads, strict=True)
    ]
    return points.assign(name=points["item"], text=texts, prompt=points["item"], outcome=outcomes, lead=leads)


def color_of(trace: RoutingTrace, points: pd.DataFrame, *, of: Mapped, color: str) -> tuple[PointColor, str]:
    """What the colors of the points say, and that in a sentence.

    Args:
        trace: the trace.
        points: of `described`.
        of: what the points are.
        color: "task", "type", "layer" or "score"; of tokens and adapters what their rooms offer.

    Returns:
        (point) · the color · a sentence, which may be empty.
    """
    if column := prompt_columns(trace).get(color):
        return _of_column(trace, points, column), ""
    if of == "token":
        return map_tokens.color_of_tokens(trace, points, color=color)
    if of == "adapter":
        return map_adapters.color_of_adapters(trace, points, color=color)
    if color == "layer":
        ticks = {float(number): label for number, label in enumerate(trace.layers)}
        at = {label: number for number, label in ticks.items()}
        return PointColor(title="Layer", values=points["layer"].astype(str).map(at), ticks=ticks), ""
    if color == "score":
        words = {"right": OKABE_ITO[2], "partly": OKABE_ITO[1], "wrong": OKABE_ITO[5], "unknown": OTHER}
        kinds = points["outcome"].reset_index(drop=True)
        there = {word: fill for word, fill in words.items() if (kinds == word).any()}
        sentence = map_sentences.of_colors(kinds.where(kinds != "unknown"), noun=of, what="score")
        return PointColor(title="Answer", values=kinds, colors=there), sentence if set(there) != {"unknown"} else ""
    if of == "expert":
        strongest = cache.answer(trace, strongest_groups, over=_OVER[color])
        keys = pd.MultiIndex.from_arrays([points["layer"], points["expert"]])
        kinds = strongest["group"].reindex(keys).reset_index(drop=True)
        sentence = map_sentences.of_colors(kinds, noun=of, what=f"{_WORDS[color]} served most")
        title = f"Serves most ({_WORDS[color]})"
    else:
        kinds = points[_OVER[color]].reset_index(drop=True)
        sentence, title = map_sentences.OF_SHARED_WORDS, _WORDS[color].capitalize()
    palette = color_of_tasks(trace) if color == "task" else color_of_task_types(trace.task_types.values())
    return PointColor(title=title, values=kinds, colors=palette, missing="none beyond chance"), sentence


def _of_column(trace: RoutingTrace, points: pd.DataFrame, column: str) -> PointColor:
    """A column of the prompts as the color of prompts, or of their tokens."""
    values = trace.prompts.set_index("prompt")[column].reindex(points["prompt"]).reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return PointColor(title=column.capitalize(), values=values.astype(float), missing="unknown")
    kinds = values.astype(object).where(values.notna(), None).map(lambda each: None if each is None else str(each))
    common = kinds.value_counts().index[: len(OKABE_ITO)]
    colors = dict(zip(common, OKABE_ITO, strict=False))
    return PointColor(title=column.capitalize(), values=kinds, colors=colors, missing="others")


def picked_rows(
    points: pd.DataFrame, selection: Selection, *, of: Mapped, trace: RoutingTrace | None = None
) -> np.ndarray:
    """Rows of the points that the selection names; none where it names all or none of them.

    Args:
        points: of `described`.
        selection: what the user looks at.
        of: what the points are.
        trace: whose adapters they are; of other points nobody asks.
    """
    if of == "adapter":
        hit = np.zeros(len(points), dtype=bool)
        if trace is not None:
            hit = map_adapters.adapter_rows(trace, points, selection)
    elif of == "token" and selection.focus is not None:
        hit = (points["prompt"] == selection.focus.prompt).to_numpy()
        if selection.focus.position is not None:
            hit = hit & (points["position"] == selection.focus.position).to_numpy()
    elif of == "expert":
        hit = np.zeros(len(points), dtype=bool)
        if selection.experts:
            wanted = pd.MultiIndex.from_tuples(selection.experts)
            hit |= pd.MultiIndex.from_arrays([points["layer"], points["expert"]]).isin(wanted)
        elif selection.layers:
            hit |= points["layer"].isin(selection.layers)
    elif selection.prompts or selection.tasks:
        hit = np.ones(len(points), dtype=bool)
        if selection.prompts:
            hit &= points["prompt"].isin(selection.prompts)
        if selection.tasks:
            hit &= points["task"].isin(selection.tasks)
    else:
        hit = np.zeros(len(points), dtype=bool)
    return np.flatnonzero(hit) if not hit.all() else np.zeros(0, dtype=np.int64)


def cluster_color(
    points: pd.DataFrame, clustering: Clustering, *, of: Mapped, n_features: int
) -> tuple[PointColor, str]:
    """Clusters as the color of the points, and what they are worth in a sentence."""
    labels = pd.Series(clustering.labels.to_numpy(), index=clustering.labels["item"].to_numpy())
    numbers = labels.reindex(points["item"]).reset_index(drop=True)
    kinds = numbers.map(lambda number: f"cluster {int(number) + 1}" if number >= 0 else None)
    names = [f"cluster {number + 1}" for number in range(clustering.n_clusters)]
    # More clusters than hues: the second round of hues has another shape.
    colors = {name: OKABE_ITO[i % len(OKABE_ITO)] for i, name in enumerate(names)}
    symbols = {name: _SHAPES[i // len(OKABE_ITO) % len(_SHAPES)] for i, name in enumerate(names)}
    sentence = map_sentences.of_clusters(clustering, noun=of, n_features=n_features)
    return PointColor(title="Cluster", values=kinds, colors=colors, symbols=symbols), sentence
