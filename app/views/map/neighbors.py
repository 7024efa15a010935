"""Who is nearest to what is picked, in the space that the map was made from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from analysis.adapter_signatures import adapter_signatures
from analysis.nearest import nearest_items
from analysis.signatures import signatures
from analysis.token_places import nearest_tokens
from app import cache, headings, slow_answers, state
from app.jobs import Job
from app.sentences import escaped
from app.views.map.kept import Mapped
from routing import Focus, RoutingTrace, Selection

__all__ = ["draw_nearest", "nearest_of_items", "nearest_of_tokens", "nearest_to_focus"]

_N_NEAREST = 10
# Tokens × layers up to which all distances are found while the reader waits: about half a second.
_MOST_AT_ONCE = 1_000_000


def nearest_of_tokens(trace: RoutingTrace, *, token: int, values: str) -> slow_answers.Tables:
    """The tokens of the whole run nearest to one.

    Returns:
        "near": (neighbor) · key and token (its row), prompt, position, piece, task, distance, median.
    """
    found = nearest_tokens(trace, token=token, n_nearest=_N_NEAREST, values=values)  # type: ignore[arg-type]
    rows = trace.tokens.iloc[found["token"].to_numpy()]
    prompts = trace.prompts.iloc[rows["prompt"].to_numpy()]
    told = found.assign(
        key=found["token"],
        prompt=prompts["prompt"].to_numpy(),
        position=rows["position"].to_numpy(),
        piece=trace.vocabulary.reindex(rows["token_id"].to_numpy()).astype(str).to_numpy(),
        task=prompts["task"].to_numpy(),
        median=found.attrs["median"],
    )
    return {"near": told}


def nearest_of_items(trace: RoutingTrace, *, of: Mapped, values: str, item: str) -> pd.DataFrame:
    """The experts, prompts or adapters nearest to one, named as on the map.

    Returns:
        (neighbor) · key (its item), distance, median; empty where the one is not known.
    """
    table = (
        adapter_signatures(trace, values=values) if of == "adapter" else signatures(trace, of=of, values=values)  # type: ignore[arg-type]
    )
    names = table["item"].to_numpy().astype(str)
    here = np.flatnonzero(names == item)
    if not len(here):
        return pd.DataFrame({"key": [], "distance": [], "median": []})
    found = nearest_items(table, item=int(here[0]), n_nearest=_N_NEAREST)
    return found.assign(key=names[found["item"].to_numpy()], median=found.attrs.get("median", np.nan))


def nearest_to_focus(
    trace: RoutingTrace, selection: Selection, *, values: str, quiet: bool = False
) -> pd.DataFrame | None:
    """The tokens nearest to the picked one; None where none is picked, or they are still being found.

    Args:
        trace: the trace.
        selection: what the reader selected.
        values: what describes tokens.
        quiet: whether the page says elsewhere that they are being found.
    """
    token = _token_of(trace, selection.focus)
    if token is None:
        return None
    asked: dict[str, Any] = {"token": token, "values": values}
    slow = slow_answers.cells_to_scan(trace) > _MOST_AT_ONCE and trace.path is not None
    if quiet and slow:
        told = slow_answers.tables_or_job(trace, nearest_of_tokens, jobs=cache.jobs(), **asked)
        return None if isinstance(told, Job) else told["near"]
    tables = slow_answers.tables(
        trace, nearest_of_tokens, what="The nearest tokens are being found", slow=slow, **asked
    )
    return None if tables is None else tables["near"]


def draw_nearest(found: pd.DataFrame, *, noun: str, selection: Selection) -> None:
    """Draw the neighbors as a table, with the yardstick in a sentence."""
    if found.empty:
        return
    headings.part(
        f"Nearest {noun}s\n\nBy distance in all features, not on the picture: from "
        f"{found['distance'].iloc[0]:.3f} to {found['distance'].iloc[-1]:.3f}, where half of all {noun}s are farther "
        f"than {found['median'].iloc[0]:.3f}."
    )
    columns = [name for name in ("piece", "task", "prompt", "position", "distance") if name in found]
    st.dataframe(
        found[columns] if "piece" in found else found[["key", "distance"]].rename(columns={"key": noun}),
        hide_index=True,
        height=38 + 35 * len(found),
        column_config={"distance": st.column_config.NumberColumn(format="%.3f")},
    )
    if "position" in found:
        nearest = found.iloc[0]
        st.button(
            f"Go to the nearest: {escaped(str(nearest['piece']).strip() or '∅')}",
            key="go_to_nearest",
            on_click=lambda: state.select(
                replace(selection, focus=Focus(prompt=str(nearest["prompt"]), position=int(nearest["position"])))
            ),
        )


def _token_of(trace: RoutingTrace, focus: Focus | None) -> int | None:
    """Row of the token axis that is looked at."""
    if focus is None or focus.position is None or trace.experts is None:
        return None
    prompt = np.flatnonzero(trace.prompts["prompt"].to_numpy() == focus.prompt)
    if not len(prompt):
        return None
    return cache.answer(trace, token_at, prompt=int(prompt[0]), position=focus.position)


def token_at(trace: RoutingTrace, *, prompt: int, position: int) -> int | None:
    """The row of the token axis that stands at a place of a prompt; None where there is none."""
    for chunk in trace.chunks(fields=()):
        hit = np.flatnonzero((chunk.prompt == prompt) & (chunk.position == position))
        if len(hit):
            return int(chunk.start + hit[0])
    return None
