"""Searching a run for a text, a token or an expert: which prompts hold it, and where in the one that is read."""

from __future__ import annotations

import re
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.occurrences import expert_occurrences, matching_tokens, token_occurrences
from app.components.token_strip import Marks
from app.prompts import Outcome, matching_prompts
from routing import RoutingTrace, expert_name

__all__ = ["KINDS", "Kind", "asked_expert", "found_prompts", "marks_of"]

Kind = Literal["text", "token", "expert"]
KINDS: dict[Kind, str] = {"text": "Text", "token": "Token", "expert": "Expert"}


def asked_expert(trace: RoutingTrace, text: str, *, layer: str) -> tuple[str, int] | None:
    """The expert that a text names: "L07·E12", "L07.E12", "L07 12", or "E12" and "12" in the layer being looked at."""
    match = re.fullmatch(r"\s*(?:(.+?)[\s.·]+)?[Ee]?(\d{1,5})\s*", text)
    if match is None:
        return None
    wanted = (match[1] or layer).casefold()
    facts = next((each for each in trace.layer_facts if each.label.casefold() == wanted), None)
    number = int(match[2])
    return (facts.label, number) if facts is not None and number < facts.n_experts else None


def found_prompts(
    trace: RoutingTrace,
    *,
    kind: Kind = "text",
    text: str = "",
    expert: tuple[str, int] | None = None,
    tasks: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    outcome: Outcome = "all",
) -> tuple[int, ...]:
    """Rows of the prompts that hold what is looked for.

    Returns:
        (prompt) · row of `trace.prompts` · in the order of the trace for a text; those with the most finds first for a
        token, those with the largest share of finds for an expert.
    """
    matching = partial(matching_prompts, trace, tasks=tasks, prompts=prompts, outcome=outcome)
    if not text or kind == "text":
        return matching(text=text)
    rows = np.array(matching(), dtype=np.int64)
    if kind == "token":
        found = token_occurrences(trace, text=text)[rows].astype(float)
    elif expert is None:
        return ()
    else:
        counts = expert_occurrences(trace, layer=expert[0], expert=expert[1]).iloc[rows]
        found = (counts["n_chosen"] / counts["n_routed"].clip(lower=1)).to_numpy()
    order = np.argsort(-found, kind="stable")
    return tuple(int(row) for row in rows[order[found[order] > 0]])


def marks_of(
    trace: RoutingTrace,
    tokens: pd.DataFrame,
    routing: xr.Dataset,
    *,
    kind: Kind,
    text: str,
    expert: tuple[str, int] | None,
) -> Marks | None:
    """Where in a passage that is which is looked for; None where nothing is."""
    if not text and expert is None:
        return None
    if text and kind == "text":
        places = _of_text(list(tokens["piece"]), text)
        what = f"“{text}”"
    elif text and kind == "token":
        wanted = set(matching_tokens(trace, text=text).index)
        places = [row for row, token in enumerate(tokens["token_id"]) if token in wanted]
        what = f"token “{text}”"
    elif expert is None or expert[0] not in routing["layer"]:
        return None
    else:
        fires = (routing["experts"].sel(layer=expert[0]).to_numpy() == expert[1]).any(axis=1)
        places = np.flatnonzero(fires).tolist()
        what = f"{expert_name(*expert, names=trace.expert_names)} selected"
    return Marks(tokens=tuple(int(place) for place in places), what=what)


def _of_text(pieces: list[str], text: str) -> list[int]:
    """Tokens that a text lies in, wherever it begins and ends within them."""
    stops = np.cumsum([len(piece) for piece in pieces])
    found: set[int] = set()
    for match in re.finditer(re.escape(text), "".join(pieces), re.IGNORECASE):
        first, last = np.searchsorted(stops, [match.start(), match.end() - 1], side="right")
        found.update(range(int(first), int(last) + 1))
    return sorted(found)
