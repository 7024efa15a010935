"""Which prompts are routed otherwise in another run, and one of them token by token."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st
import xarray as xr

from app import cache, choices, headings, state
from app.components.plot_bridge import Click
from app.exchange import component_state
from app.links import view_link
from app.panel import data_popover, definitions_popover, mode, panel
from app.sentences import escaped
from app.views.compare import change_sentences
from app.views.compare import pairing as comparing
from app.views.compare.answers import Sides
from figures.comparisons import token_churn_heatmap
from figures.pieces import shown_piece
from routing import Focus

__all__ = ["prompt_panels"]

_KEY = "compare_prompts"
# Rows that a reader may still look through; the file of "Data" holds all.
_MOST_ROWS = 300
# Wider than this, a picture of single tokens says nothing; the Tokens view scrolls.
_MOST_TOKENS = 160
_LONGEST = 14


def prompt_panels(sides: Sides) -> None:
    """Draw the table of prompts, the most changed first, and the tokens of the one that is looked at."""
    table = sides.ask(comparing.changes_of_prompts)
    offered = [str(each) for each in table.index[:_MOST_ROWS]]
    focus = sides.selection.focus
    prompt = focus.prompt if focus is not None and focus.prompt in table.index else offered[0]
    if prompt not in offered:
        offered.append(prompt)
    _table(sides, table, offered)
    _tokens(sides, table, offered, prompt=prompt)


def _look_at(sides: Sides, prompt: str, position: int | None = None) -> None:
    state.select(replace(sides.selection, focus=Focus(prompt=prompt, position=position)))


def _table(sides: Sides, table: pd.DataFrame, offered: list[str]) -> None:
    def clicked() -> None:
        told = component_state(_KEY, "selection") or {}
        rows = [row for row in told.get("rows", ()) if row < len(shown)]
        if rows:
            _look_at(sides, str(shown.index[rows[0]]))

    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        headings.part("Which prompts changed most", width="stretch")
        definitions_popover(("changed_prompts",), key=_KEY)
        data_popover(table.reset_index, key=_KEY, definitions=("changed_prompts",))
    shown = table.loc[offered]
    columns = {
        "prompt": shown.index,
        "task": shown["task"],
        "tokens": shown["n_tokens"],
        "churn": 100 * shown["churn"],
        "its task": 100 * shown["task_mean"],
        "z": shown["z"],
    }
    here = sides.names[sides.here]
    # Names of runs can be long, and stand above two columns each.
    for side, name in zip(("before", "after"), sides.names, strict=True):
        name = name if len(name) <= _LONGEST else "this run" if name == here else "other run"
        if shown[f"score_{side}"].notna().any():
            columns[f"score, {name}"] = shown[f"score_{side}"]
        if shown[f"prediction_{side}"].astype(bool).any():
            columns[f"answer, {name}"] = shown[f"prediction_{side}"]
    st.dataframe(
        pd.DataFrame(columns),
        key=_KEY,
        hide_index=True,
        on_select=clicked,
        selection_mode="single-row",
        height=min(320, 38 + 35 * len(shown)),
        column_config={
            "churn": st.column_config.NumberColumn(format="%.1f %%"),
            "its task": st.column_config.NumberColumn(format="%.1f %%", help="Mean churn of the prompts of its task"),
            "z": st.column_config.NumberColumn(
                format="%.1f", help="Distance to the mean of its task, in standard deviations of the task's prompts"
            ),
        },
    )
    st.markdown(change_sentences.of_prompts(table) + " Click a row to see its tokens below.")


def _tokens(sides: Sides, table: pd.DataFrame, offered: list[str], *, prompt: str) -> None:
    changes = cache.answer_over(sides.matched, comparing.changes_of_tokens, prompt=prompt)
    shown = changes.isel(token=slice(0, _MOST_TOKENS))
    positions = shown["position"].to_numpy()
    focus = sides.selection.focus
    at = None
    if focus is not None and focus.prompt == prompt and focus.position is not None:
        at = next((number for number, position in enumerate(positions) if position == focus.position), None)

    labels = {name: f"{name} · {churn:.0%}" for name, churn in table["churn"].loc[offered].items()}

    def clicked(click: Click) -> None:
        column = round(click.x)
        if 0 <= column < len(positions):
            _look_at(sides, prompt, int(positions[column]))

    def controls() -> None:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            with st.container(width=420):
                choices.choose_one(
                    "Prompt, the most changed first",
                    offered,
                    key="compare_prompt",
                    chosen=prompt,
                    on_change=lambda name: _look_at(sides, name),
                    shown=labels.__getitem__,
                )
            view_link(
                "tokens",
                "Read it under every layer",
                icon=":material/segment:",
                selection=replace(sides.selection, focus=Focus(prompt=prompt, position=None)),
                shade="change",
                base=sides.other,
            )

    n_left = changes.sizes["token"] - shown.sizes["token"]
    cut = f" The first {_MOST_TOKENS} tokens are drawn; {n_left:,} more are in “Data”." if n_left else ""
    panel(
        f"Token by token: {escaped(prompt)}",
        cache.picture(token_churn_heatmap, shown, names=sides.names, selected=at, mode=mode()),
        key="compare_tokens",
        reading=change_sentences.of_tokens(changes, names=sides.names) + cut,
        table=lambda: comparing.token_rows(changes),
        definitions=("token_churn",),
        on_click=clicked,
        controls=controls,
    )
    if at is not None:
        _token(sides, shown, at)


def _token(sides: Sides, shown: xr.Dataset, at: int) -> None:
    """The experts of one token in both runs, layer by layer."""
    rows = comparing.token_rows(shown.isel(token=[at]))
    piece = escaped(shown_piece(str(rows["piece"].iloc[0])).text.strip())
    st.markdown(f"Experts of token {at}, “{piece}”, those with the largest weight first:")
    columns = {
        "layer": rows["layer"],
        "churn": 100 * rows["churn"],
        f"in {sides.names[0]}": rows["experts_before"],
        f"in {sides.names[1]}": rows["experts_after"],
        "margin before": rows["margin"],
    }
    formats = {"churn": "%.0f %%", "margin before": "%.3f"}
    st.dataframe(
        pd.DataFrame(columns),
        hide_index=True,
        column_config={name: st.column_config.NumberColumn(format=text) for name, text in formats.items()},
    )
