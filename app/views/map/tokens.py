"""Tokens on a map: what they are called, what stood around them, and what their color says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.token_sample import token_sample
from app import cache
from app.sentences import count, percent
from figures.pieces import shown_piece, snippet
from figures.scatter import PointColor
from figures.theme import OKABE_ITO, color_of_task_types, color_of_tasks
from routing import RoutingTrace

__all__ = ["COLORS", "color_of_tokens", "described_tokens", "token_contexts"]

COLORS = ("task", "type", "phase", "nll", "margin", "position")

# Tokens before and after, and how many tokens a trace may have for its passages to be put together.
_AROUND = 7
_MOST_TOKENS = 3_000_000
_TITLES = {
    "nll": "NLL (nats)",
    "margin": "Margin, mean of layers (score)",
    "position": "Position in the text (token)",
}
# Beyond this share of the tokens a scale of few outliers would leave all others one color.
_CUT = 0.98
_PHASES = {"prompt": OKABE_ITO[4], "generated": OKABE_ITO[5]}


def token_contexts(trace: RoutingTrace, *, most_items: int, seed: int) -> pd.Series:
    """What stood around the tokens of a map, those within ⟦brackets⟧.

    Returns:
        token · text of its row of the token axis; empty for a trace too long for its passages to be put together.
    """
    rows = token_sample(trace, n_tokens=most_items, seed=seed)["token"].to_numpy()
    if trace.n_tokens > _MOST_TOKENS or not len(trace.vocabulary):
        return pd.Series("", index=rows, dtype=object)
    tokens = trace.tokens
    order = np.lexsort((tokens["position"], tokens["stack"].cat.codes, tokens["prompt"]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    prompt, stack = tokens["prompt"].to_numpy()[order], tokens["stack"].cat.codes.to_numpy()[order]
    ids = tokens["token_id"].to_numpy()[order]
    around = place[rows][:, None] + np.arange(-_AROUND, _AROUND + 1)
    near = np.clip(around, 0, len(order) - 1)
    here = place[rows][:, None]
    same = (around == near) & (prompt[near] == prompt[here]) & (stack[near] == stack[here])
    pieces = trace.vocabulary.reindex(ids[near].ravel()).to_numpy(dtype=object).reshape(near.shape)
    texts = []
    for row, there in zip(pieces, same, strict=True):
        words = [
            str(piece) if known and isinstance(piece, str) else "" for piece, known in zip(row, there, strict=True)
        ]
        words[_AROUND] = f"⟦{words[_AROUND]}⟧"
        texts.append(snippet("".join(words), n_characters=120))
    return pd.Series(texts, index=rows, dtype=object)


def described_tokens(trace: RoutingTrace, points: pd.DataFrame, *, most_items: int, seed: int) -> pd.DataFrame:
    """The points with a name and a text for their tooltips.

    Returns:
        (point) · as `routing_map` gives them, then name, text, lead · lead is what stood around the token.
    """
    contexts = cache.answer(trace, token_contexts, most_items=most_items, seed=seed)
    lead = contexts.reindex(points["item"]).fillna("").to_numpy()
    names = [shown_piece(str(piece)).text.strip() or "∅" for piece in points["piece"]]
    texts = [
        f"{task} ({kind}) · {phase}, position {position}{f' · NLL {nll:.1f}' if nll == nll else ''}\n{around}"
        for task, kind, phase, position, nll, around in zip(
            points["task"], points["task_type"], points["phase"], points["position"], points["nll"], lead, strict=True
        )
    ]
    return points.assign(name=names, text=texts, lead=lead)


def color_of_tokens(trace: RoutingTrace, points: pd.DataFrame, *, color: str) -> tuple[PointColor, str]:
    """What the colors of tokens say, and that in a sentence."""
    if color in _TITLES:
        values = points[color].astype(float).reset_index(drop=True)
        known = values.dropna()
        if known.empty:
            return PointColor(title=_TITLES[color], values=values.astype(object)), f"No token has a known {color}."
        most = float(known.quantile(_CUT))
        cut = int((known > most).sum())
        said = f" The {count(cut, 'token')} above {most:.3g} have the color of {most:.3g}." if cut else ""
        missing = f" {percent(1 - len(known) / len(values))} have none (gray)." if len(known) < len(values) else ""
        title = _TITLES[color] if not cut else f"{_TITLES[color]}, to {most:.3g}"
        return PointColor(title=title, values=values.clip(upper=most), missing="unknown"), (said + missing).strip()
    if color == "phase":
        kinds = points["phase"].astype(str).reset_index(drop=True)
        return PointColor(title="Phase", values=kinds, colors=_PHASES), ""
    column = {"task": "task", "type": "task_type"}[color]
    palette = color_of_tasks(trace) if color == "task" else color_of_task_types(trace.task_types.values())
    kinds = points[column].astype(object).reset_index(drop=True)
    return PointColor(title={"task": "Task", "type": "Task type"}[color], values=kinds, colors=palette), ""
